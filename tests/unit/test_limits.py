"""Rate limits without Redis: the client of a request, blocked addresses, and the fallback in memory."""

from __future__ import annotations

import pytest

from snapurl import limits
from snapurl.config import load_settings
from snapurl.limits import Blocklist, Limiter, client_address


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "counted"),
    [
        ("192.0.2.1", None, 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.1", "6.6.6.6, 198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.1", "6.6.6.6, 198.51.100.7,10.0.0.1", 2, "198.51.100.7"),
        ("192.0.2.1", "198.51.100.7", 2, "192.0.2.1"),
        ("192.0.2.1", "", 1, "192.0.2.1"),
        ("192.0.2.1", "unknown", 1, "192.0.2.1"),
        ("192.0.2.1", "x, y", 1, "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", None, 0, "2001:db8:1:2::/64"),
        ("192.0.2.1", "[2001:db8:1:2::9]", 1, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", None, 0, "192.0.2.1"),
        ("fe80::1%eth0", None, 0, "fe80::/64"),
        ("", None, 0, ""),
    ],
)
def test_whom_a_request_is_counted_against(
    peer: str, forwarded: str | None, proxies: int, counted: str
) -> None:
    """Only addresses appended by a trusted proxy identify a client; an IPv6 /64 is one client."""
    assert client_address(peer, forwarded, proxies) == counted


def test_the_blocklist_lets_in_again_by_itself() -> None:
    """Blocked addresses are unblocked when their entries expire; an empty list is false, so a check is free."""
    clock = Clock()
    blocked = Blocklist(clock)
    assert not blocked
    blocked.block("a", 5)
    assert blocked and blocked.seconds_left("a") == 5 and blocked.seconds_left("b") == 0
    clock.now_s += 5
    assert blocked.seconds_left("a") == 0 and not blocked


def test_the_blocklist_empties_itself() -> None:
    """An address that sends no more requests does not keep the list from becoming empty."""
    clock = Clock()
    blocked = Blocklist(clock)
    blocked.block("a", 9)
    blocked.block("b", 5)
    clock.now_s += 8
    assert blocked and blocked.seconds_left("a") == 1
    clock.now_s += 1
    assert not blocked


def test_the_blocklist_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the list is full, the address that was blocked first is unblocked."""
    monkeypatch.setattr(limits, "BLOCKED_MAX", 3)
    blocked = Blocklist(Clock())
    for who in "abcd":
        blocked.block(who, 60)
    assert [who for who in "abcd" if blocked.seconds_left(who)] == ["b", "c", "d"]


async def test_without_redis_each_process_counts_for_itself() -> None:
    """Without Redis the limit holds within each process, and the verdict says how much remains."""
    limiter = Limiter(load_settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_ms=50))
    verdicts = [await limiter.hit("create", "me", "3/hour") for _ in range(4)]
    assert [verdict and (verdict.allowed, verdict.remaining) for verdict in verdicts] == [
        (True, 2),
        (True, 1),
        (True, 0),
        (False, 0),
    ]
    last = verdicts[-1]
    assert last is not None and 1 <= last.reset_s <= 3600 and last.window_s == 3600
    assert (other := await limiter.hit("create", "you", "3/hour")) and other.allowed
    await limiter.close()


async def test_the_fallback_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the fallback table is full, it is emptied and does not grow."""
    monkeypatch.setattr(limits, "MEMORY_BUCKETS_MAX", 3)
    limiter = Limiter(load_settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_ms=50))
    for number in range(10):
        await limiter.hit("create", str(number), "3/hour")
    assert len(limiter._local_storage.storage) <= 3
    await limiter.close()


async def test_no_limit_costs_nothing() -> None:
    """Requests under the limit `none` are not counted."""
    limiter = Limiter(load_settings(redis_url="redis://127.0.0.1:1/0"))
    assert await limiter.hit("create", "me", "none", cost=10**9) is None
    await limiter.close()
