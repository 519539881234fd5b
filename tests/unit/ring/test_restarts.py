"""The decision about a restarted shard, made from the rows of all shards."""

from __future__ import annotations

import pytest

from ring.ownership import SlotRow, SlotState
from ring.placement import place
from ring.restarts import Assessment, Lost, RestartedShard, assess
from ring.topology import Shard, Topology

S = SlotState
SLOT = 7


def row(state: SlotState, epoch: int, peer: str | None = None) -> SlotRow:
    return SlotRow(SLOT, state, epoch, peer)


def found(
    mine: SlotRow | None,
    *,
    silent: tuple[str, ...] = (),
    topologies: tuple[Topology, ...] = (),
    timelines: tuple[int, int] = (1, 1),
    newest: int = 1,
    **others: SlotRow | None,
) -> Assessment:
    """Assesses shard `b`, with one row of the slot on it and on each other shard (None: no row)."""
    rows = {name: {} if each is None else {each.slot: each} for name, each in {"b": mine, **others}.items()}
    return assess(RestartedShard("b", *timelines), rows, silent, topologies, newest)


def topology(*names: str) -> Topology:
    shards = tuple(Shard(name, 1.0, f"{name}:5432/x") for name in names)
    return Topology("c", 1, 64, shards)


@pytest.mark.parametrize("state", [S.OWNED, S.LEAVING, S.FROZEN])
def test_a_slot_that_another_has_at_a_higher_epoch_is_lost(state: SlotState) -> None:
    """A restarted shard gives up a slot that another shard holds at a higher epoch."""
    mine = row(state, 3, None if state is S.OWNED else "t")
    assert found(mine, t=row(S.OWNED, 4)).lost == (Lost(SLOT, "t", 4),)
    assert found(mine, t=row(S.RELEASED, 5, "u")).lost == (Lost(SLOT, "u", 5),)
    assert found(mine, t=row(S.RELEASED, 5, "u"), u=row(S.OWNED, 5)).lost == (Lost(SLOT, "u", 5),)
    assert found(mine, t=row(S.OWNED, 6), u=row(S.RELEASED, 5, "t")).lost == (Lost(SLOT, "t", 6),)


def test_a_slot_that_came_back_and_was_forgotten_is_lost_too() -> None:
    """A slot that was handed to the restarted shard, which has lost that hand-off, is reported as lost."""
    assert found(row(S.OWNED, 3), t=row(S.RELEASED, 5, "b")).lost == (Lost(SLOT, "t", 5),)


@pytest.mark.parametrize(
    "mine", [row(S.CLOSED, 3, "t"), row(S.RELEASED, 4, "t"), row(S.IMPORTING, 2, "u"), None]
)
def test_what_serves_nothing_needs_nothing(mine: SlotRow | None) -> None:
    """A row that serves neither reads nor writes is left to the hand-off."""
    assert found(mine, t=row(S.OWNED, 4)).clean


def test_an_import_that_may_be_under_way_is_retracted() -> None:
    """Only an import of this epoch from this shard is retracted: its COMMIT may still arrive."""
    assert found(row(S.LEAVING, 3, "t"), t=row(S.IMPORTING, 3, "b")).imports == {"t": ((SLOT, 3),)}
    assert found(row(S.OWNED, 3), t=row(S.IMPORTING, 3, "b")).imports == {"t": ((SLOT, 3),)}
    assert found(row(S.OWNED, 3), t=row(S.IMPORTING, 2, "u")).clean


def test_equal_claims_are_left_to_an_operator() -> None:
    """If two shards hold a slot at one epoch, no rule decides, and an operator must."""
    assert "at the same epoch 3" in found(row(S.OWNED, 3), t=row(S.OWNED, 3)).blockers[0].reason
    assert found(row(S.OWNED, 3), t=row(S.RELEASED, 3, "b")).clean


def test_an_older_timeline_is_that_of_a_server_that_was_replaced() -> None:
    """A timeline older than the newest attested one, which the other shards record, means a replaced server."""
    assessment = found(row(S.OWNED, 3), t=None, newest=2)
    assert assessment.replaced
    assert "timeline 1, and 2" in assessment.blockers[0].reason
    assert not found(row(S.OWNED, 3), t=row(S.OWNED, 3)).replaced
    assert found(row(S.OWNED, 3), t=None, timelines=(3, 2), newest=2).clean


def test_a_silent_shard_must_answer_unless_it_cannot_have_the_slots() -> None:
    """A plain restart waits for a silent shard only if no other answers, or that shard may have its slots."""
    names = ("b", "t", "u")
    placed = place(topology(*names))
    slot = placed.index("b")
    mine = {slot: SlotRow(slot, S.OWNED, 3, None)}

    def wait(
        restarted: RestartedShard, *others: str, topologies: tuple[Topology, ...] = (topology(*names),)
    ) -> str:
        rows = {"b": mine, **{name: {} for name in others}}
        silent = [name for name in names[1:] if name not in others]
        blockers = assess(restarted, rows, silent, topologies, 1).blockers
        return blockers[0].reason if blockers else ""

    restarted, promoted = RestartedShard("b", 1, 1), RestartedShard("b", 2, 1)
    assert wait(restarted, "t") == ""
    assert wait(promoted, "t", "u") == ""
    assert "u must answer first" in wait(promoted, "t")
    assert "no other shard answers" in wait(restarted)
    without_b = topology("t", "u")
    silent = place(without_b)[slot]
    answers = "t" if silent == "u" else "u"
    assert "a shard that is silent" in wait(restarted, answers, topologies=(topology(*names), without_b))
    assert "a shard that is silent" not in wait(restarted, silent, topologies=(topology(*names), without_b))
    mine[slot] = SlotRow(slot, S.LEAVING, 3, "u")
    assert "in hand-off" in wait(restarted, "t")
