"""The ring: the slot of a code, the slot table of a topology, the plan for adding a shard."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from uhashring import HashRing

from ring.ownership import SlotRow, SlotState, merge
from ring.placement import place
from ring.plan import plan
from ring.slots import SLOT_COUNT, slot_of
from ring.topology import Shard, Topology

VIRTUAL_NODES = 1024
CODES = [f"n{number:07d}" for number in range(1000)]

compute_slot = slot_of.__wrapped__  # without its cache


def topology_of(shards: int) -> Topology:
    """Returns a topology of `shards` equal shards."""
    found = (Shard(f"db{number}", 1.0, f"127.0.0.1:{20_000 + number}/snapurl") for number in range(shards))
    return Topology("benchmark", 1, VIRTUAL_NODES, tuple(sorted(found, key=lambda shard: shard.name)))


def sha256_point(key: str) -> int:
    """Returns the hash that SnapURL's ring uses."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")


@pytest.mark.benchmark(group="code to shard")
def test_shard_of_a_code_by_slot(benchmark: BenchmarkFixture) -> None:
    """Finds the slot of a code and its shard in the table, as the router does for each call."""
    table = place(topology_of(4))
    codes = itertools.cycle(CODES)
    assert benchmark(lambda: table[compute_slot(next(codes))]) in {"db0", "db1", "db2", "db3"}


@pytest.mark.benchmark(group="code to shard")
@pytest.mark.parametrize("hashed", ["md5", "sha256"])
def test_shard_of_a_code_by_get_node(benchmark: BenchmarkFixture, hashed: str) -> None:
    """Runs uhashring's look-up on a ring with as many points, with its hash and with SnapURL's."""
    options: dict[str, Any] = {"hash_fn": sha256_point} if hashed == "sha256" else {}
    ring = HashRing(nodes={f"db{number}": {"vnodes": VIRTUAL_NODES} for number in range(4)}, **options)
    codes = itertools.cycle(CODES)
    assert benchmark(lambda: ring.get_node(next(codes))) in {"db0", "db1", "db2", "db3"}


@pytest.mark.benchmark(group="slot of a code")
def test_slot_of_a_code(benchmark: BenchmarkFixture) -> None:
    """Computes the first 14 bits of SHA-256."""
    assert 0 <= benchmark(compute_slot, CODES[0]) < SLOT_COUNT


@pytest.mark.benchmark(group="ring built")
@pytest.mark.parametrize("shards", [4, 16, 64])
def test_slot_table_of_a_topology(benchmark: BenchmarkFixture, shards: int) -> None:
    """Places all 16,384 slots, with 1,024 virtual nodes per shard."""
    topology = topology_of(shards)
    assert len(set(benchmark(place, topology))) == shards


@pytest.mark.benchmark(group="plan of adding one")
@pytest.mark.parametrize("shards", [4, 16, 64])
def test_plan_of_adding_one(benchmark: BenchmarkFixture, shards: int) -> None:
    """Plans moves from the ownership, including the new slot table."""
    before = topology_of(shards)
    rows: dict[str, list[SlotRow]] = {shard.name: [] for shard in before.shards}
    for slot, owner in enumerate(place(before)):
        rows[owner].append(SlotRow(slot, SlotState.OWNED, 1, None))
    ownership = merge({name: tuple(found) for name, found in rows.items()})
    after = before.with_shard(Shard("new", 1.0, "127.0.0.1:31000/snapurl"))
    found = benchmark(lambda: plan(ownership, place(after)))
    assert {transfer.target for transfer in found.transfers} == {"new"}
    assert 0.5 < found.slots / SLOT_COUNT * (shards + 1) < 1.5
