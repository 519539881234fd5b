"""Ownership: merging the rows of the shards, and detecting inconsistencies."""

from __future__ import annotations

import pytest

from ring.errors import OwnershipError
from ring.ownership import HOLDING, READABLE, WRITABLE, Contest, Owner, SlotRow, SlotState, merge
from ring.slots import SLOT_COUNT

OWNED, LEAVING, FROZEN, CLOSED, RELEASED, IMPORTING = SlotState


def row(state: SlotState, epoch: int, peer: str | None = None, slot: int = 5) -> SlotRow:
    return SlotRow(slot, state, epoch, peer)


def test_an_empty_cluster_owns_nothing() -> None:
    """Without rows every slot is unowned and none is contested."""
    found = merge({"db0": (), "db1": ()})
    assert found.unowned == tuple(range(SLOT_COUNT))
    assert found.contested == ()


def test_whole_cluster() -> None:
    """Slots of two shards are merged into one table."""
    rows = {
        "db0": [row(OWNED, 1, slot=s) for s in range(0, SLOT_COUNT, 2)],
        "db1": [row(OWNED, 1, slot=s) for s in range(1, SLOT_COUNT, 2)],
    }
    found = merge(rows)
    assert found.unowned == ()
    assert found.contested == ()
    assert found.owners[6] == Owner("db0", 1, OWNED)
    assert found.owners[7] == Owner("db1", 1, OWNED)


@pytest.mark.parametrize(
    ("source", "target", "owner"),
    [
        (row(LEAVING, 7, "db4"), row(IMPORTING, 7, "db0"), Owner("db0", 7, LEAVING)),
        (row(FROZEN, 7, "db4"), row(IMPORTING, 7, "db0"), Owner("db0", 7, FROZEN)),
        (row(CLOSED, 7, "db4"), row(IMPORTING, 7, "db0"), Owner("db0", 7, CLOSED)),
        (row(CLOSED, 7, "db4"), row(OWNED, 8), Owner("db4", 8, OWNED)),
        (row(RELEASED, 8, "db4"), row(OWNED, 8), Owner("db4", 8, OWNED)),
    ],
)
def test_one_owner_at_every_step_of_a_hand_off(source: SlotRow, target: SlotRow, owner: Owner) -> None:
    """Each pair of states that a hand-off passes through has one owner and is not contested."""
    found = merge({"db0": [source], "db4": [target]})
    assert found.owners[5] == owner
    assert found.contested == ()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (row(OWNED, 7), row(OWNED, 8)),
        (row(LEAVING, 7, "db4"), row(OWNED, 8)),
        (row(FROZEN, 7, "db4"), row(OWNED, 8)),
        (row(OWNED, 7), row(OWNED, 7)),
        (row(CLOSED, 8, "db4"), row(OWNED, 8)),
    ],
)
def test_two_owners_are_contested(source: SlotRow, target: SlotRow) -> None:
    """Two shards that both answer reads, or hold the slot at one epoch, are reported."""
    assert source.epoch <= target.epoch
    found = merge({"db0": [source], "db4": [target]})
    claims = (Owner("db0", source.epoch, source.state), Owner("db4", target.epoch, target.state))
    assert found.contested == (Contest(5, claims),)


def test_a_slot_given_to_a_shard_that_lost_it_is_unowned() -> None:
    """A `released` row does not make its peer the owner if the peer reports otherwise."""
    assert 5 in merge({"db0": [row(RELEASED, 8, "db4")], "db4": ()}).unowned


def test_the_owner_that_does_not_answer_is_known_from_who_gave() -> None:
    """While a shard is down, `released` rows on other shards still show which slots it owns."""
    found = merge({"db0": [row(RELEASED, 8, "db4")], "db1": [row(RELEASED, 3, "db0")]})
    assert found.owners[5] == Owner("db4", 8, None)
    assert found.contested == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: row(OWNED, 1, slot=SLOT_COUNT),
        lambda: row(OWNED, 1, slot=-1),
        lambda: row(OWNED, 0),
        lambda: row(OWNED, 1, "db1"),
        lambda: row(RELEASED, 1),
        lambda: merge({"db0": [row(OWNED, 1), row(OWNED, 1)]}),
    ],
)
def test_rows_that_cannot_be(make: object) -> None:
    """Rows that the schema does not allow are refused."""
    with pytest.raises(OwnershipError):
        make()  # type: ignore[operator]


def test_states_nest() -> None:
    """A state that accepts writes also answers reads, and one that answers reads also holds the slot."""
    assert WRITABLE < READABLE < HOLDING < set(SlotState)
