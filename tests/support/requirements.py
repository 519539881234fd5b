"""Requirements of tests beyond Python packages, such as programs of the machine, by name.

A test is skipped only through `requires` or `skip_without`, and only if a requirement is missing. Any other skip
fails. With `--may-lack haproxy,wrk`, a skip for any program not in the list also fails.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support import helm

PREFIX = "this machine lacks: "

_SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def program(name: str) -> str | None:
    """Returns the path of a program, also from the directories that only root has in its PATH."""
    return shutil.which(name, path=_SYSTEM_PATH)


_PROGRAMS = ("chromium", "haproxy", "psql", "redis-cli", "wrk", "nginx", "node")

_IS_THERE: dict[str, Callable[[], object]] = {
    **{name: lambda name=name: program(name) for name in _PROGRAMS},  # type: ignore[misc]  # a default, not a parameter
    "helm": helm.found,
    "npm": lambda: program("npm"),
    "systemd-analyze": lambda: program("systemd-analyze"),
    "root": lambda: os.geteuid() == 0,
    "a user other than root": lambda: os.geteuid() != 0,
    "the clients of `make .venv/.dev`": lambda: next((Path(sys.prefix) / "clients").glob("*.whl"), None),
    "what `make release` needs": lambda: importlib.util.find_spec("twine"),
    "/proc": lambda: Path("/proc/self").exists(),
}


def requires(name: str) -> pytest.MarkDecorator:
    """Marks a test that is skipped if the requirement is missing."""
    assert name in _IS_THERE, name
    return pytest.mark.requires(name)


def skip_unless_there(item: pytest.Item) -> None:
    """Skips a test if a requirement that it is marked with is missing."""
    for mark in item.iter_markers("requires"):
        if not _IS_THERE[mark.args[0]]():
            skip_without(mark.args[0])


def skip_without(name: str, why: str = "") -> NoReturn:
    """Skips the running test, which has found that the requirement `name` is missing."""
    said = f"{PREFIX}{name}" + (f" ({why})" if why else "")
    raise pytest.skip.Exception(said, _use_item_location=True)  # else this line is reported, not the test


def unfit_skip(reason: str, may_lack: frozenset[str] | None) -> str:
    """Returns why a skip for this reason fails, or "" if it is allowed. `may_lack` None allows every program."""
    _, found, rest = reason.partition(PREFIX)
    if not found:
        return f"a skip has to say what it requires, and this one does not: {reason}"
    name = rest.partition(" (")[0].strip()
    if may_lack is not None and name in _PROGRAMS and name not in may_lack:
        return f"skipped for want of {name}, which should be there"
    return ""
