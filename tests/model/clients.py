"""The clients' next events: writes through the fence, reads through the cache, and the purge of dead rows.

A client may use any shard at any time, like a router with an arbitrarily stale map. The fence decides.
"""

from __future__ import annotations

from collections.abc import Iterator

from ring.ownership import HOLDING, SlotState
from tests.model.crashes import flushed
from tests.model.moves import Event, Violation, fall_behind
from tests.model.mutation import Mutation
from tests.model.world import (
    IDLE,
    Committed,
    Idle,
    Row,
    Scope,
    World,
    Writer,
    Writing,
    put,
    readable,
    writable,
)


class Clients:
    """Events of the clients, under a mutation."""

    def __init__(self, mutation: Mutation, scope: Scope) -> None:
        self._mutation = mutation
        self._scope = scope

    def events(self, world: World) -> Iterator[Event]:
        """Yields all possible next events. Raises Violation if a write loses another."""
        for place in (0, 1):
            yield from self._write(world, place)
        if self._scope.cache:
            yield from self._read(world)
        for shard, row in enumerate(world.rows):
            if row < 0 and self._may_purge(world.slots[shard]):
                purged = world._replace(rows=put(world.rows, shard, 0))
                yield Event(f"dead rows of {shard} are purged", False, flushed(world, purged, relaxed=False))

    def _write(self, world: World, place: int) -> Iterator[Event]:
        match world.writers[place]:
            case Writing(shard=shard):
                yield from self._commit(world, place, shard)
            case Committed(row=row):
                yield Event("the reply of a write is lost", True, _wrote(world, place, IDLE))
                told = self._cached(world, row)._replace(acked=max(world.acked, abs(row)))
                yield Event("a write is acknowledged", False, _wrote(told, place, IDLE))
            case Idle() if 0 <= world.latest < self._scope.versions:
                for shard in writable(world):
                    after = _wrote(world, place, Writing(shard))
                    yield Event(f"a write passes the fence of {shard}", False, after)

    def _commit(self, world: World, place: int, shard: int) -> Iterator[Event]:
        base = world.rows[shard]
        purged = base == 0 and world.latest < 0
        if base != world.latest and not purged:
            raise Violation("a write is built on an old row: what was written since is lost")
        if base < 0 or purged or base == self._scope.versions:
            yield Event("a write finds the link gone", False, _wrote(world, place, IDLE))
            return
        for row in (base + 1, -base - 1) if base else (1,):
            after = fall_behind(world, shard, self._mutation)._replace(
                rows=put(world.rows, shard, row), latest=row
            )
            then = Committed(row) if self._scope.cache else IDLE
            after = flushed(world, after, relaxed=False)
            yield Event(f"a write commits {row} in {shard}", False, _wrote(after, place, then))

    def _cached(self, world: World, row: int) -> World:
        """Returns the world after `row` was put into the cache."""
        if self._mutation.versions and world.cached is not None and abs(row) <= abs(world.cached):
            return world
        return world._replace(cached=row)

    def _read(self, world: World) -> Iterator[Event]:
        if world.loaded is not None:
            after = self._cached(world, world.loaded)._replace(loaded=None)
            yield Event("the reader puts into the cache", False, after)
            return
        for shard in readable(world):
            yield Event(f"the reader loads from {shard}", False, world._replace(loaded=world.rows[shard]))

    def _may_purge(self, row: Row | None) -> bool:
        if row is None:
            return False
        return row.state is SlotState.OWNED or (not self._mutation.purge_checks and row.state in HOLDING)


def _wrote(world: World, place: int, writer: Writer) -> World:
    """Writers are interchangeable: worlds that differ only in the order of writers are the same world."""
    other = world.writers[1 - place]
    return world._replace(writers=(writer, other) if hash(writer) <= hash(other) else (other, writer))
