"""What a test may need of the machine beyond Python's packages, by name.

A test is skipped only through `requires` or `skip_without`, and only if the thing is not there. Any other skip
fails. Where `--may-lack haproxy,wrk` says which programs may be missing, so does a skip for want of another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

PREFIX = "this machine lacks: "

_SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def program(name: str) -> str | None:
    """The path of a program; services are often where only root looks."""
    return shutil.which(name, path=_SYSTEM_PATH)


_PROGRAMS = ("haproxy", "psql", "redis-cli", "wrk", "nginx")

_IS_THERE: dict[str, Callable[[], object]] = {
    **{name: lambda name=name: program(name) for name in _PROGRAMS},  # type: ignore[misc]  # a default, not a parameter
    "root": lambda: os.geteuid() == 0,
    "a user other than root": lambda: os.geteuid() != 0,
    "/proc": lambda: Path("/proc/self").exists(),
}


def requires(name: str) -> pytest.MarkDecorator:
    """Marks a test that is skipped where the thing is not there."""
    assert name in _IS_THERE, name
    return pytest.mark.requires(name)


def skip_unless_there(item: pytest.Item) -> None:
    """Skips a test that is marked as requiring what is not there."""
    for mark in item.iter_markers("requires"):
        if not _IS_THERE[mark.args[0]]():
            skip_without(mark.args[0])


def skip_without(name: str, why: str = "") -> NoReturn:
    """Skips the test that runs: the machine has turned out to lack what `name` says."""
    said = f"{PREFIX}{name}" + (f" ({why})" if why else "")
    raise pytest.skip.Exception(said, _use_item_location=True)  # else this line is named, and not the test


def unfit_skip(reason: str, may_lack: frozenset[str] | None) -> str:
    """Why a skip for that reason is a failure; empty if it is not. `may_lack` None allows for every program."""
    _, found, rest = reason.partition(PREFIX)
    if not found:
        return f"a skip has to say what it requires, and this one does not: {reason}"
    name = rest.partition(" (")[0].strip()
    if may_lack is not None and name in _PROGRAMS and name not in may_lack:
        return f"skipped for want of {name}, which should be there"
    return ""
