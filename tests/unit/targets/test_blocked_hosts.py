"""The list of a worker: loaded off the event loop, read again when the file changes, kept when it cannot be."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from snapurl.errors import Unavailable
from snapurl.targets.blocked_hosts import CHECK_S, RETRY_S, UNFINISHED_S, BlockedHosts
from snapurl.telemetry.metrics import BLOCKLIST_FAULT

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_the_list_follows_its_file(tmp_path: Path) -> None:
    """A new file is read; a vanished, unreadable or unfinished one is not: the list before it stays."""
    file, clock = tmp_path / "blocked", Clock()
    hosts = BlockedHosts(file, clock, lambda: NOW)

    async def check(after_s: float = CHECK_S) -> None:
        clock.now_s += after_s
        await hosts.check()

    def replace(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.rename(file)

    await check()
    assert hosts.fault and "No such file" in hosts.fault
    with pytest.raises(Unavailable):
        hosts.has("good.example")
    replace("0.0.0.0 bad.example\n")
    await check()
    assert hosts.has("bad.example") and hosts.has("WWW.bad.example.") and not hosts.has("bad.example.org")
    assert (hosts.state.hosts, hosts.state.loaded_at) == (1, NOW) and not hosts.state.fault

    replace("worse.example\n")
    await check()
    assert hosts.has("bad.example"), "it was read before it rested"
    await check()
    assert hosts.has("worse.example") and not hosts.has("bad.example")

    file.unlink()
    await check()
    assert hosts.has("worse.example") and hosts.fault and "No such file" in hosts.fault
    assert BLOCKLIST_FAULT._value.get() == 1

    replace("<html>\n<body>\nmaintenance\n")
    await check()
    await check()
    assert hosts.has("worse.example") and hosts.fault and "no list of hosts" in hosts.fault

    file.write_text("half.example\nunfin")
    await check()
    await check()
    assert hosts.has("worse.example") and not hosts.has("half.example")
    file.write_text("half.example\nunfinished.example\n")
    await check()
    await check()
    assert hosts.has("unfinished.example") and hosts.fault is None
    assert BLOCKLIST_FAULT._value.get() == 0

    file.write_text("last.example")  # without an end, as some editors leave it
    await check()
    await check()
    assert not hosts.has("last.example")
    await check(UNFINISHED_S)
    assert hosts.has("last.example") and not hosts.has("half.example")


async def test_a_file_that_was_refused_is_read_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read for now costs no program every few seconds, and is read again after a while."""
    file, clock = tmp_path / "blocked", Clock()
    file.write_text("bad.example\n")
    hosts = BlockedHosts(file, clock, lambda: NOW)
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", str(tmp_path / "no-python"))
        await hosts.check()
        assert hosts.fault and "cannot start the program" in hosts.fault
    clock.now_s += CHECK_S
    await hosts.check()
    assert hosts.state.hosts is None
    clock.now_s += RETRY_S
    await hosts.check()
    assert hosts.has("bad.example") and hosts.fault is None


@pytest.mark.long
async def test_a_million_hosts_are_looked_up_at_once(tmp_path: Path) -> None:
    """A list of a million hosts has 8 bytes for each, and finds every one of them and no other."""
    file = tmp_path / "blocked"
    file.write_text("".join(f"0.0.0.0 host-{number}.example\n" for number in range(1_000_000)))
    hosts = BlockedHosts(file, time.monotonic, lambda: NOW)
    await hosts.check()
    assert hosts.state.hosts == 1_000_000
    assert all(hosts.has(f"a.host-{number}.example") for number in range(0, 1_000_000, 1_000))
    assert not any(hosts.has(f"host-{number}.example.org") for number in range(1_000))
