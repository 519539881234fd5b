"""A run of an import against a service that is played here: order, repeats, what is too large, and the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from io import BytesIO
from threading import Lock
from typing import Any

import pytest

from snapurl.commands import import_run
from snapurl.commands.api import Api, ApiRefusal
from snapurl.commands.import_run import ImportRun, Result
from snapurl.imports.catalogue import SOURCES
from snapurl.imports.plan import ImportPlan, RowOutcome
from snapurl.imports.rows import Reading
from tests.unit.imports.reading import NOW

BUSY = {"status": 503, "error": {"detail": "the slot is being moved"}}


class Played(Api):
    """A service that keeps links in a dict."""

    def __init__(self, key: str) -> None:
        super().__init__("http://played", key)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        assert isinstance(body, bytes)
        asked = json.loads(body)
        items = asked["links"]
        with LOCK:
            CALLS.append(len(items))
            if len(items) > LINKS_MAX[0]:
                raise ApiRefusal("a body may have at most 10 bytes", 413)
            if FAULTS:
                raise FAULTS.pop()
            results = [self._made(item, is_dry=asked["dry_run"]) for item in items]
        if not asked.get("only_exceptions"):
            return {"results": results, "places": None}
        told = {place: result for place, result in enumerate(results) if result["status"] != 201}
        return {"results": list(told.values()), "places": list(told)}

    def _made(self, item: dict[str, Any], *, is_dry: bool) -> dict[str, Any]:
        code = item.get("alias") or f"made-{item['id']}"
        if BUSY_CODES.get(code, 0):
            BUSY_CODES[code] -= 1
            return BUSY
        there = LINKS.get(code) if is_dry else LINKS.setdefault(code, item["url"])
        if there is None or (there == item["url"] and code not in MADE):
            MADE.update(() if is_dry else (code,))
            return {"status": 201, "code": code, "domain": None}
        if there == item["url"]:
            return {"status": 200, "code": code, "domain": None}
        return {"status": 409, "error": {"detail": "the code leads elsewhere here"}}


LOCK = Lock()
LINKS: dict[str, str] = {}
MADE: set[str] = set()
CALLS: list[int] = []
FAULTS: list[ApiRefusal] = []
BUSY_CODES: dict[str, int] = {}
LINKS_MAX = [1_000]


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (LINKS, MADE, CALLS, FAULTS, BUSY_CODES):
        each.clear()
    LINKS_MAX[0] = 1_000
    monkeypatch.setattr(import_run, "PAUSE_S", 0)
    monkeypatch.setattr(import_run, "CALL_LINKS_MAX", 4)


def imported(content: str, *, is_dry: bool = False, key: str = "secret", **plan: Any) -> list[Result]:
    """Returns the results of a run, which come in the order of the rows."""
    results: list[Result] = []
    source = SOURCES["csv"](BytesIO(content.encode()), Reading(UTC, NOW))
    ImportRun(Played(key), ImportPlan(is_dry, **plan), results.append).run(source)
    assert [result.row.place for result in results] == list(range(1, len(results) + 1))
    return results


def outcomes(results: list[Result]) -> list[str]:
    return [result.outcome.value for result in results]


def test_of_rows_with_one_code_the_first_wins() -> None:
    """However many calls run at a time; a dry run says the same."""
    content = "code,url\n" + "".join(f"c{row % 7},https://example.org/{row // 7}\n" for row in range(35))
    expected = ["created"] * 7 + ["refused"] * 28
    assert outcomes(imported(content, is_dry=True)) == expected and not LINKS
    assert outcomes(imported(content)) == expected
    assert {f"c{row}": "https://example.org/0" for row in range(7)} == LINKS


def test_a_row_without_a_code_has_the_same_in_each_run_and_another_with_another_key() -> None:
    """Two rows with one target are two links."""
    content = "url\n" + "https://example.org/\n" * 3
    assert outcomes(imported(content)) == ["created"] * 3
    first = list(LINKS)
    assert len(first) == 3
    again = imported(content)
    assert [result.code for result in again] == first and outcomes(again) == ["present"] * 3
    assert outcomes(imported(content, key="another")) == ["created"] * 3 and len(LINKS) == 6


def test_what_does_not_answer_is_asked_again_and_nothing_else() -> None:
    """A busy link is repeated alone; a service that stays away ends the run, which says what to do."""
    content = "code,url\n" + "".join(f"c{row},https://example.org/\n" for row in range(4))
    BUSY_CODES.update(c2=2)
    FAULTS.append(ApiRefusal("cannot reach", 0))
    assert outcomes(imported(content)) == ["created"] * 4
    assert CALLS == [4, 4, 1, 1]
    BUSY_CODES.update(c2=100)
    with pytest.raises(ApiRefusal, match="run it again"):
        imported(content)
    FAULTS.append(ApiRefusal("the key lacks the right", 403))
    with pytest.raises(ApiRefusal, match="lacks the right"):
        imported(content)


def test_a_call_that_is_too_large_is_divided() -> None:
    """Down to one link, which is then refused as the service says."""
    content = "code,url\n" + "".join(f"c{row},https://example.org/\n" for row in range(4))
    LINKS_MAX[0] = 1
    assert outcomes(imported(content)) == ["created"] * 4
    LINKS_MAX[0] = 0
    with pytest.raises(ApiRefusal, match="at most"):
        imported(content)


def test_what_is_left_out_is_named() -> None:
    """`only` is a domain of the file, and expired links can be left behind; the rest has the tags of the run."""
    content = "code,url,domain,expires\na,https://e.org/,x.org,\nb,https://e.org/,,\nc,https://e.org/,X.org:80,2020-01-01\n"
    results = imported(content, only="x.org", skips_expired_at=NOW, tags=("t",))
    assert outcomes(results) == ["created", "skipped", "skipped"]
    assert [result.reason for result in results[1:]] == ["it is of the domain (none)", "it has expired"]
    assert results[0].outcome is RowOutcome.CREATED and LINKS == {"a": "https://e.org/"}
