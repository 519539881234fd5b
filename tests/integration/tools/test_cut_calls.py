"""The operator's connections, cut at each await of a call, one after another."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any, NoReturn

import asyncpg
import pytest

from ring.handoff import Desired, SourceState, TargetState, next_steps
from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import CLUSTER, ShardFailed
from snapurl.store.cluster.tables import sharded_tables
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.tools.conftest import settle
from tests.integration.tools.test_commands import run_program
from tests.support.cut import Connections, cut_at, cut_at_each
from tools.cluster.fleet import Fleet
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, ShardPair


@pytest.mark.parametrize("answered", [False, True], ids=["waiting", "answered"])
async def test_a_statement_that_is_cut_at_any_await_is_a_failure_of_the_shard(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """If a control connection is cut at any await, the error names the shard, and the next call works."""
    fleet = await Fleet.connect(ready)
    connections = Connections(monkeypatch)

    async def once(used: bool, at: int) -> bool:
        await fleet.close()
        if used:
            await fleet.control("db0")
        was_cut = True
        try:
            asking = fleet.fetch("db0", CLUSTER["topology"])
            _, was_cut = await cut_at(asking, at, connections.cut, answered=answered)
        except ShardFailed as error:
            assert error.name == "db0"
        assert await fleet.fetch("db0", CLUSTER["topology"])
        return was_cut

    for used in (False, True):
        assert await cut_at_each(partial(once, used)) >= 2
    await fleet.close()


@pytest.mark.parametrize(
    "words",
    [("plan", "drain", "db0"), ("verify",), ("cleanup", "--yes", "--grace-s", "0"), ("doctor",)],
    ids=" ".join,
)
async def test_a_command_that_loses_a_connection_names_the_shard(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """If the server ends a session in the middle of a command, its one line names the shard."""

    async def lost(connection: Any) -> NoReturn:
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("it was closed")

    for module in (
        "change.preflight._check_schema",
        "repair.consistency.sharded_tables",
        "migrator.cleanup.sharded_tables",
    ):
        monkeypatch.setattr(f"tools.{module}", lambda connection, *_: lost(connection))
    said = await run_program(ready, *words)
    assert said.code == 1, said
    assert said.err == "snapurl-reshard: shard db0 closed the connection\n"


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_move_that_is_cut_at_any_await_loses_nothing(
    ready: Settings, store: Store, new_link: NewLinkMaker, side: str
) -> None:
    """A move whose source or target is cut fails with a lost connection; the migrator completes it without loss."""
    owners = place(store.shards.topology)
    made: dict[int, str] = {}  # slot -> code
    numbers = count()
    fleet = await Fleet.connect(ready)

    async def once(at: int) -> bool:
        code = next(
            code for n in numbers if owners[slot_of(code := f"cut{n}")] == "db0" and slot_of(code) not in made
        )
        made[slot_of(code)] = code
        await store.links.create(new_link(code))
        source, target = await fleet.open("db0"), await fleet.open("db1")
        ends = ShardPair(source, target, await sharded_tables(source))
        move = Executor(Batch("db0", "db1", (slot_of(code),), (1,)), ends)
        program = next_steps(Desired.MOVE, SourceState.OWNED, TargetState.ABSENT)
        cut = getattr(ends, side).terminate
        was_cut = True
        try:
            _, was_cut = await cut_at(move.run(program), at, cut, answered=True)
        except LOST:
            pass
        finally:
            source.terminate()
            target.terminate()
        return was_cut

    assert await cut_at_each(once) >= 20
    await fleet.close()
    await settle(ready)
    for code in made.values():
        assert await store.links.get(code) is not None
