"""Names use the standard terms of the field, and each word has one meaning."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.source_code import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("ring", "snapurl", "tools")
FILES = tuple(sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")))
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MODULES = tuple(str(path.relative_to(ROOT)) for path in FILES)

# Private words, and the standard terms for them.
PRIVATE = {
    "agenda": "schedule",
    "beside": "concurrently, in the background",
    "bench": "connections",
    "bury": "merge",
    "company": "batch",
    "crowd": "connection budget",
    "enlist": "register",
    "heard": "heartbeat, invalidation",
    "look": "read, poll, observe, sample",
    "looked": "read, observed",
    "looking": "reading, observing",
    "looks": "samples, polls",
    "news": "invalidation, event",
    "past": "restart",
    "prospect": "estimate",
    "pulse": "process metrics",
    "recruit": "provision",
    "tell": "notify",
    "tells": "notifies",
    "together": "batch",
    "told": "notified, reported",
    "untold": "pending",
    "vain": "failed",
    "vouch": "attest",
    "vouched": "attested",
    "wish": "request",
    "wishes": "requests",
}

# Public names that two packages define, and why that is not confusing.
SHARED = {
    "Call": "of a shard, with clicks; of a screen, by a browser",
    "address_of": "of a shard in a DSN; of a client in a request",
    "cli": "the commands of a program",
    "main": "the entry point of a program",
    **dict.fromkeys(
        (
            "create_account",
            "create_key",
            "list_accounts",
            "list_keys",
            "rename_account",
            "revoke_key",
            "transfer_links",
        ),
        "what a command calls, and the handler that does the same over HTTP",
    ),
    "openapi": "the command prints what the function returns",
    "plan": "the command shows what the function returns",
    "run": "the main coroutine of a program, and the command that runs the migrator's",
    "show": "a command prints what it has found; a screen shows it",
    "serve": "the command runs the function",
    "up": "the command runs the function",
}


def words_of(path: Path) -> Iterator[str]:
    """Yields the words of every identifier, split at underscores and capitals."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            yield from map(str.lower, re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", token.string))


@cache
def public_names() -> dict[str, set[str]]:
    """Returns, per public top-level class or function, the packages that define one of that name."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for node in parsed(path).body:
            if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
                found[node.name].add(str(path.parent.relative_to(ROOT)))
    return found


def test_no_module_is_named_by_a_gerund() -> None:
    """Modules are named for their content, not for an activity."""
    assert [module for module in MODULES if module.endswith("ing.py")] == []


@pytest.mark.parametrize("module", MODULES)
def test_identifiers_have_no_words_of_our_own(module: str) -> None:
    """No identifier uses a private word that a reader who knows PostgreSQL, Redis and asyncio has to learn."""
    found = PRIVATE.keys() & set(words_of(ROOT / module))
    assert not found, {word: PRIVATE[word] for word in found}


def test_no_public_name_is_defined_in_two_packages() -> None:
    """A public name has one meaning, unless it is listed with its reason."""
    shared = {name: found for name, found in public_names().items() if len(found) > 1}
    assert {name: sorted(found) for name, found in shared.items() if name not in SHARED} == {}
