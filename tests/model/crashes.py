"""A shard that crashes: it restarts in the state after one of its commits, and all connections to it are lost.

Every commit that waited for the disk survives, and so do all before it. Of the later commits, which did not wait,
the last ones may be lost. The promotion of a synchronous standby looks the same to the hand-off.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import IDLE, Busy, Migrator, Row, Snapshot, State, World, Writing, put


def flushed(before: World, after: World, *, relaxed: bool) -> World:
    """Returns `after` with the states that a crash may restore on the shards that one commit has changed."""
    if not before.crashes:
        return after
    unflushed = after.unflushed
    for shard, states in enumerate(before.unflushed):
        was = _state(before, shard)
        if was != _state(after, shard):
            unflushed = put(unflushed, shard, states | {was} if relaxed else frozenset())
    return after._replace(unflushed=unflushed)


def crashes(world: World) -> Iterator[tuple[str, World]]:
    """Yields every possible crash of a shard now: the event, and the world after it."""
    if not world.crashes:
        return
    for shard, states in enumerate(world.unflushed):
        yield f"shard {shard} crashes", _crashed(world, shard, _state(world, shard))
        for state in sorted(states, key=str):
            yield f"shard {shard} crashes, and is as it was at {state}", _crashed(world, shard, state)


def _state(world: World, shard: int) -> State:
    return State(world.slots[shard], world.rows[shard])


def _crashed(world: World, shard: int, state: State) -> World:
    left = world.crashes - 1
    first, second = (_cut_off(migrator, shard, state.slot) for migrator in world.migrators)
    one, other = (IDLE if writer == Writing(shard) else writer for writer in world.writers)
    return world._replace(
        slots=put(world.slots, shard, state.slot),
        rows=put(world.rows, shard, state.row),
        migrators=(first, second),
        writers=(one, other) if hash(one) <= hash(other) else (other, one),
        crashes=left,
        unflushed=put(world.unflushed, shard, frozenset()) if left else (frozenset(),) * len(world.slots),
    )


def _cut_off(migrator: Migrator, shard: int, row: Row | None) -> Migrator:
    """Returns the migrator after the crash. A snapshot may stay valid: a crash can restore the row it read."""
    if isinstance(migrator, Snapshot) and migrator.source == shard:
        return migrator._replace(unchanged=row is not None and row.state == migrator.found.value)
    if isinstance(migrator, Busy):
        return migrator._replace(cut=put(migrator.cut, shard, True), mine=put(migrator.mine, shard, False))
    return migrator
