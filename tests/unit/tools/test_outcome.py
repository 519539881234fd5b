"""What became of a change, from the topologies that were published."""

from __future__ import annotations

from ring.topology import Shard, Topology
from tools.cluster.outcome import End, Outcome, end_of, versions_of_change

START = Topology("c1", 1, 64, tuple(Shard(f"db{n}", 1.0, f"h{n}:5432/d") for n in range(3)))


def published(*topologies: Topology) -> dict[int, Topology]:
    return {topology.version: topology for topology in (START, *topologies)}


def test_pause_resume_and_the_departure_of_an_empty_shard_end_no_change() -> None:
    """A change stays the goal through topologies that place every slot as it does."""
    drained = START.drained("db0")
    paused = drained.with_paused(True)
    resumed = paused.with_paused(False)
    gone = resumed.without("db0")
    found = published(drained, paused, resumed, gone)
    assert end_of(2, found) is None
    assert versions_of_change(gone.version, found) == [2, 3, 4, 5]


def test_what_places_slots_as_before_cancels_and_anything_else_replaces() -> None:
    """`cancel` is told from a further change, also after a pause, and also if weights were set back by hand."""
    drained = START.drained("db0")
    paused = drained.with_paused(True)
    assert end_of(2, published(drained, drained.back_to(START))) == End(Outcome.CANCELLED, 3)
    assert end_of(2, published(drained, paused, paused.back_to(START))) == End(Outcome.CANCELLED, 4)
    assert end_of(2, published(drained, drained.with_weight("db1", 2.0))) == End(Outcome.REPLACED, 3)
    heavier = START.with_weight("db1", 2.0)
    assert end_of(2, published(heavier, heavier.with_weight("db1", 1.0))) == End(Outcome.CANCELLED, 3)


def test_only_the_first_end_counts() -> None:
    """A cancelled change stays cancelled when it is made again, which is a change of its own."""
    drained = START.drained("db0")
    back = drained.back_to(START)
    again = back.drained("db0")
    found = published(drained, back, again)
    assert end_of(2, found) == End(Outcome.CANCELLED, 3)
    assert end_of(3, found) == End(Outcome.CANCELLED, 4)
    assert end_of(4, found) is None


def test_topologies_that_are_no_longer_kept_are_not_guessed_at() -> None:
    """Without the topology before it a change cannot be called cancelled, and of an unknown one nothing is said."""
    drained = START.drained("db0")
    found = {2: drained, 3: drained.back_to(START)}
    assert end_of(2, found) == End(Outcome.REPLACED, 3)
    assert end_of(1, found) is None
