"""Made-up codes that are gathered at one shard after the other."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from ring.slots import SLOT_COUNT, slot_of
from snapurl.codes import random_code
from snapurl.store.batching.creates import Codes

SHARES = {"db0": 0.1, "db1": 0.2, "db2": 0.2, "db3": 0.5}
CODES = 40_000
PER_TURN = 10


def owner(code: str) -> str:
    at = slot_of(code) / SLOT_COUNT
    return "db0" if at < 0.1 else "db1" if at < 0.3 else "db2" if at < 0.5 else "db3"


@pytest.fixture
def codes() -> Codes:
    return Codes(owner, partial(random_code, random.Random(5).randrange), lambda shard: True)


def test_what_is_gathered_together_is_of_one_shard(codes: Codes) -> None:
    """Until a call is sent off, all codes are of one shard; then of another, by lot, and each has its turns."""
    seen = set()
    for _ in range(200):
        turn = {owner(codes.gathered()) for _ in range(PER_TURN)}
        assert len(turn) == 1
        seen |= turn
        codes.sent_off(turn.pop())
    assert seen == set(SHARES)


def test_every_shard_gets_its_share_of_the_ring(codes: Codes) -> None:
    """Gathering favours no shard, and within a shard no slot, and gives no code twice."""
    made: list[str] = []
    while len(made) < CODES:
        turn = [codes.gathered() for _ in range(PER_TURN)]
        made += turn
        codes.sent_off(owner(turn[0]))
    assert len(set(made)) == len(made)
    counts = Counter(owner(code) for code in made)
    for shard, share in SHARES.items():
        deviation = PER_TURN * (CODES / PER_TURN * share * (1 - share)) ** 0.5
        assert abs(counts[shard] - CODES * share) < 4 * deviation, counts
    parts = Counter(slot_of(code) * 20 // SLOT_COUNT for code in made if owner(code) == "db3")
    assert max(parts.values()) < 1.2 * min(parts.values()), parts


def test_a_shard_that_has_lost_its_slots_holds_nobody_up() -> None:
    """While codes are gathered at a shard that has given its last slot away, those of others are made up."""
    owners = ["db4"]
    codes = Codes(lambda code: owners[0], random_code, lambda shard: True)
    codes.gathered()
    owners[0] = "db0"
    assert len({codes.gathered() for _ in range(50)}) == 50


def test_no_code_is_made_up_for_a_shard_that_does_not_answer() -> None:
    """Neither alone nor in company, and no longer at the shard at which codes were gathered before."""
    silent: set[str] = set()
    codes = Codes(owner, partial(random_code, random.Random(5).randrange), lambda shard: shard not in silent)
    silent.add(owner(codes.gathered()))
    assert silent.isdisjoint(owner(codes.gathered()) for _ in range(PER_TURN))
    silent |= {"db1", "db3"}
    made = [codes.any() for _ in range(1_000)]
    for _ in range(100):
        made.append(codes.gathered())
        codes.sent_off(owner(made[-1]))
    assert silent.isdisjoint(map(owner, made))


def test_codes_are_made_up_though_no_shard_answers() -> None:
    """Whoever creates a link is then told which shard is silent."""
    codes = Codes(owner, random_code, lambda shard: False)
    assert len({codes.any() for _ in range(50)} | {codes.gathered() for _ in range(50)}) == 100
