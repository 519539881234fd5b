"""A shard's side of the hand-off: `ring.handoff.RULES` applied to the world, as the SQL applies them."""

from __future__ import annotations

from typing import Final

from ring.handoff import RULES, Epoch, Guard, Step, Token
from ring.ownership import SlotState
from tests.model.mutation import Mutation
from tests.model.world import Busy, Idle, Migrator, Row, Snapshot, World, put

_SETTLED: Final = frozenset({SlotState.OWNED, SlotState.RELEASED})
"""States whose rows have no token."""


class Refused(Exception):
    """A guard did not hold."""


class Shards:
    """Runs the checks of a step and its change of the `slots` rows, for the migrator at `place`."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation

    def apply(self, world: World, place: int, step: Step, me: Busy) -> World:
        """Returns the world after `step`, including its migrators. Raises Refused if a guard does not hold."""
        rule = RULES[step]
        if step is Step.RETRACT and not self._retractable(world, me):
            return world
        if rule.source is not None and not (step is Step.CLEAN and not self._mutation.clean_checks):
            epoch = me.epoch + 1 if step is Step.CLEAN else me.epoch
            world = self._guarded(world, place, me, rule.source, me.source, me.target, epoch)
        if rule.target is not None:
            world = self._guarded(world, place, me, rule.target, me.target, me.source, me.epoch)
        return world

    @staticmethod
    def _retractable(world: World, me: Busy) -> bool:
        """Whether the target imports for this move; if not, RETRACT does nothing. Raises Refused if decided."""
        row = world.slots[me.target]
        if row is not None and row.epoch > me.epoch:
            raise Refused
        return row == Row(SlotState.IMPORTING, me.epoch, me.source)

    def _guarded(
        self, world: World, place: int, me: Busy, guard: Guard, shard: int, peer: int, epoch: int
    ) -> World:
        row = world.slots[shard]
        if (row.state if row else None) not in guard.finds:
            raise Refused
        if row is not None:
            self._check(row, guard, me, shard, peer, epoch)
        if guard.leaves is None and not guard.fresh:
            return world
        return _changed(world, place, shard, _after(row, guard, me, peer), fresh=guard.fresh)

    def _check(self, row: Row, guard: Guard, me: Busy, shard: int, peer: int, epoch: int) -> None:
        if self._mutation.epochs and not self._fits(row, guard, peer, epoch):
            raise Refused
        if not self._mutation.tokens:
            return
        if guard.token is Token.MINE and not me.mine[shard]:
            raise Refused
        if guard.token is Token.FOUND and not me.unchanged and self._mutation.claims_compare:
            raise Refused

    @staticmethod
    def _fits(row: Row, guard: Guard, peer: int, epoch: int) -> bool:
        """Whether the row has the epoch and peer of the move; for IMPORT, those of an earlier move also fit."""
        if guard.epoch is Epoch.MOVES:
            return row.epoch <= epoch
        return row.epoch == epoch and row.peer in (peer, None)


def _after(row: Row | None, guard: Guard, me: Busy, peer: int) -> Row:
    state = guard.leaves or (row.state if row else None)
    assert state is not None
    new_peer = None if state is SlotState.OWNED else peer
    if row is None or guard.epoch is Epoch.MOVES:
        return Row(state, max(row.epoch if row else 0, me.epoch), new_peer)
    return Row(state, row.epoch + (guard.epoch is Epoch.NEXT), new_peer)


def _changed(world: World, place: int, shard: int, row: Row, *, fresh: bool) -> World:
    """Returns the world with another row, and with the tokens and snapshots of the migrators updated."""
    kept = not fresh and row.state not in _SETTLED
    first, second = (
        _noticed(migrator, shard, mine=(fresh and at == place), kept=kept)
        for at, migrator in enumerate(world.migrators)
    )
    return world._replace(slots=put(world.slots, shard, row), migrators=(first, second))


def _noticed(migrator: Migrator, shard: int, *, mine: bool, kept: bool) -> Migrator:
    if isinstance(migrator, Idle):
        return migrator
    unchanged = migrator.unchanged and migrator.source != shard
    if isinstance(migrator, Snapshot):
        return migrator._replace(unchanged=unchanged)
    flag = migrator.mine[shard] if kept else mine
    return migrator._replace(unchanged=unchanged, mine=put(migrator.mine, shard, flag))
