"""Rate limits without Redis: blocked clients, sites, and the fallback in memory."""

from __future__ import annotations

import pytest

from snapurl import limits
from snapurl.config import load_settings
from snapurl.limits import SITE_FACTOR, Blocklist, Limiter


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


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


def test_a_blocked_site_blocks_its_clients() -> None:
    """While a /48 is blocked, so is every /64 in it, for embedded fetches apart; a /64 blocks no other one."""
    blocked = Blocklist(Clock())
    assert blocked.block("2001:db8:1::/48", 5)
    assert not blocked.block("2001:db8:1::/48", 5)
    assert blocked.seconds_left("2001:db8:1:2::/64") == 5
    assert blocked.seconds_left("embedded:2001:db8:1:2::/64") == 0
    assert blocked.seconds_left("2001:db8:2:2::/64") == 0
    blocked.block("embedded:2001:db8:2:2::/64", 5)
    assert blocked.seconds_left("embedded:2001:db8:2:2::/64") == 5
    assert blocked.seconds_left("2001:db8:2:2::/64") == blocked.seconds_left("2001:db8:2:3::/64") == 0


@pytest.mark.parametrize("prefix", ["", "address:", "embedded:"])
async def test_a_customer_with_many_networks_has_one_wider_limit(prefix: str) -> None:
    """Each /64 has the limit; all of a /48 together have SITE_FACTOR times as much, and the verdict names it."""
    limiter = Limiter(load_settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_ms=50))
    for network in range(SITE_FACTOR):
        client = f"{prefix}2001:db8:1:{network:x}::/64"
        verdicts = [await limiter.hit("create", client, "2/hour") for _ in range(3)]
        assert [verdict and verdict.allowed for verdict in verdicts] == [True, True, False]
        assert verdicts[2] is not None and verdicts[2].client == client
    refused = await limiter.hit("create", f"{prefix}2001:db8:1:ffff::/64", "2/hour")
    assert refused is not None and not refused.allowed
    assert (refused.client, refused.limit) == (f"{prefix}2001:db8:1::/48", 2 * SITE_FACTOR)
    other = await limiter.hit("create", f"{prefix}2001:db8:2::/64", "2/hour")
    assert other is not None and other.allowed
    await limiter.close()


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
