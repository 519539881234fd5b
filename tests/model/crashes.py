"""A shard that crashes: it comes back as it was after one of its commits, and everybody's connection to it is gone.

What waited for the disk is there, and all that was committed before it; of what came after it and did not wait,
the later part may be lost. The promotion of a synchronous standby looks the same to the hand-off.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import IDLE, Busy, Migrator, Row, Snapshot, State, World, Writing, put


def flushed(before: World, after: World, *, relaxed: bool) -> World:
    """`after`, with what a crash may bring back on the shards that one commit has changed since `before`."""
    if not before.crashes:
        return after
    unflushed = after.unflushed
    for shard, states in enumerate(before.unflushed):
        was = _state(before, shard)
        if was != _state(after, shard):
            unflushed = put(unflushed, shard, states | {was} if relaxed else frozenset())
    return after._replace(unflushed=unflushed)


def crashes(world: World) -> Iterator[tuple[str, World]]:
    """Every way in which a shard can crash now: what happened, and the world after it."""
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
    """Who has only looked may find what it saw again: the row can have gone back to it, token and all."""
    if isinstance(migrator, Snapshot) and migrator.source == shard:
        return migrator._replace(unchanged=row is not None and row.state == migrator.found.value)
    if isinstance(migrator, Busy):
        return migrator._replace(cut=put(migrator.cut, shard, True), mine=put(migrator.mine, shard, False))
    return migrator
