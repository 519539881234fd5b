"""Generated codes, drawn for one shard at a time."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from ring.slots import SLOT_COUNT, slot_of
from snapurl.codes import random_code, split_key
from snapurl.store.batching.generated_codes import GeneratedCodes

SHARES = {"db0": 0.1, "db1": 0.2, "db2": 0.2, "db3": 0.5}
CODES = 40_000
PER_BATCH = 10


def owner(code: str) -> str:
    at = slot_of(code) / SLOT_COUNT
    return "db0" if at < 0.1 else "db1" if at < 0.3 else "db2" if at < 0.5 else "db3"


@pytest.fixture
def codes() -> GeneratedCodes:
    return GeneratedCodes(owner, lambda shard: True, partial(random_code, random.Random(5).randrange))


def test_the_codes_of_a_batch_belong_to_one_shard(codes: GeneratedCodes) -> None:
    """All codes of a batch belong to one shard; the next batch goes to another, and every shard is used."""
    seen = set()
    for _ in range(200):
        turn = {owner(codes.for_batch()) for _ in range(PER_BATCH)}
        assert len(turn) == 1
        seen |= turn
        codes.batch_sent(turn.pop())
    assert seen == set(SHARES)


def test_every_shard_gets_its_share_of_the_ring(codes: GeneratedCodes) -> None:
    """Generated codes favour no shard and, within a shard, no slot; no code is returned twice."""
    made: list[str] = []
    while len(made) < CODES:
        turn = [codes.for_batch() for _ in range(PER_BATCH)]
        made += turn
        codes.batch_sent(owner(turn[0]))
    assert len(set(made)) == len(made)
    counts = Counter(owner(code) for code in made)
    for shard, share in SHARES.items():
        deviation = PER_BATCH * (CODES / PER_BATCH * share * (1 - share)) ** 0.5
        assert abs(counts[shard] - CODES * share) < 4 * deviation, counts
    parts = Counter(slot_of(code) * 20 // SLOT_COUNT for code in made if owner(code) == "db3")
    assert max(parts.values()) < 1.2 * min(parts.values()), parts


def test_a_target_that_has_lost_its_slots_is_given_up() -> None:
    """If the target shard no longer owns any slot, codes of other shards are generated."""
    owners = ["db4"]
    codes = GeneratedCodes(lambda code: owners[0], lambda shard: True)
    codes.for_batch()
    owners[0] = "db0"
    assert len({codes.for_batch() for _ in range(50)}) == 50


def test_no_code_is_generated_for_a_shard_that_is_down() -> None:
    """Neither a single create nor a batch gets a code of a shard that is down, even if it was the target."""
    down: set[str] = set()
    codes = GeneratedCodes(
        owner, lambda shard: shard not in down, partial(random_code, random.Random(5).randrange)
    )
    down.add(owner(codes.for_batch()))
    assert down.isdisjoint(owner(codes.for_batch()) for _ in range(PER_BATCH))
    down |= {"db1", "db3"}
    made = [codes.one() for _ in range(1_000)]
    for _ in range(100):
        made.append(codes.for_batch())
        codes.batch_sent(owner(made[-1]))
    assert down.isdisjoint(map(owner, made))


def test_the_codes_of_a_domain_are_drawn_by_its_keys() -> None:
    """The keys of another domain go to one shard per batch too, and to none that is down."""
    draw = partial(random_code, random.Random(5).randrange)
    codes = GeneratedCodes(owner, lambda shard: shard != "db3", draw, "go.example.org")
    made = [codes.for_batch() for _ in range(PER_BATCH)]
    assert len({owner(key) for key in made}) == 1
    made += [*codes.many(100), *(codes.one() for _ in range(100))]
    assert "db3" not in map(owner, made) and len(set(made)) == len(made)
    assert {split_key(key)[0] for key in made} == {"go.example.org"}


def test_codes_are_generated_even_if_all_shards_are_down() -> None:
    """If all shards are down, codes are still generated, and the create fails with the shard's error."""
    codes = GeneratedCodes(owner, lambda shard: False)
    assert len({codes.one() for _ in range(50)} | {codes.for_batch() for _ in range(50)}) == 100
