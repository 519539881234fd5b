"""Differences that VERIFY detects although CHECK has compared all rows before the pause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from ring.handoff import Desired, SourceState, Step, TargetState, next_steps
from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.model import Account, ApiKey, LinkPatch, Right
from snapurl.store.cluster.tables import sharded_tables
from tests.integration.store.conftest import NewLinkMaker, Store
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, Refused, ShardPair

PROGRAM = next_steps(Desired.MOVE, SourceState.OWNED, TargetState.ABSENT)
FROZEN = PROGRAM.index(Step.FREEZE)
CODES = 30


@pytest.fixture
async def checked(
    ready: Settings, store: Store, new_link: NewLinkMaker
) -> AsyncIterator[tuple[Executor, list[str]]]:
    """Yields an executor from db0 to db1 that has executed CHECK, and the codes of the moving links."""
    owners = place(store.shards.topology)
    codes = [code for n in range(400) if owners[slot_of(code := f"c{n}")] == "db0"][:CODES]
    await store.links.create_many([new_link(code) for code in codes])
    slots = tuple(sorted({slot_of(code) for code in codes}))
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    ends = ShardPair(await asyncpg.connect(dsns["db0"]), await asyncpg.connect(dsns["db1"]), ())
    ends.tables = await sharded_tables(ends.source)
    executor = Executor(Batch("db0", "db1", slots, (1,) * len(slots)), ends)
    await executor.run(PROGRAM[:FROZEN])
    yield executor, codes
    await ends.source.close()
    await ends.target.close()


async def state_of(executor: Executor) -> set[str]:
    rows = await executor.pair.source.fetch(
        "SELECT DISTINCT state FROM slots WHERE slot = ANY ($1)", executor.batch.slots
    )
    return {row["state"] for row in rows}


async def test_what_is_written_after_the_check_is_moved(
    checked: tuple[Executor, list[str]], store: Store, new_link: NewLinkMaker
) -> None:
    """Links, accounts and keys that are written between CHECK and the pause are on the target afterwards."""
    executor, codes = checked
    token = new_link("x").token
    await store.links.change(
        codes[0], LinkPatch(title="“new”\\u0000\n"), if_match=None, owner=None, token=token
    )
    await store.links.delete(codes[1], if_match=None, owner=None, token=token)
    made = next(code for n in range(10**6) if slot_of(code := f"m{n}") in executor.batch.slots)
    await store.links.create(new_link(made))
    ids = (f"{n:010}" for n in range(10**6))
    at, hash_of = datetime(2030, 1, 1, tzinfo=UTC), b"hash"
    key_id, account_id = (
        next(text for text in ids if slot_of(text) in executor.batch.slots) for _ in range(2)
    )
    key = ApiKey(key_id, "key", hash_of, frozenset({Right.READ}), "", at, None, "acc_0123456789", "maker")
    account = Account(account_id, "team", at, "maker")
    assert await store.keys.add(key) and await store.accounts.add(account)
    await store.keys.note_use(key_id)
    await executor.run(PROGRAM[FROZEN:])
    moved = await store.keys.find(key_id)
    assert moved is not None and moved.used_at is not None
    assert replace(moved, used_at=None) == key
    assert await store.accounts.find(account_id) == account
    assert await state_of(executor) == {"released"}
    changed = await store.links.get(codes[0])
    assert changed is not None and changed.title == "“new”\\u0000\n"
    deleted = await store.links.get(codes[1])
    assert deleted is not None and deleted.deleted_at is not None
    assert await store.links.get(made) is not None


@pytest.mark.parametrize(
    ("side", "statement"),
    [
        pytest.param(
            "source", "UPDATE links SET title = 'other' WHERE code = $1", id="a write without its xid"
        ),
        pytest.param("source", "DELETE FROM links WHERE code = $1", id="a row that is gone"),
        pytest.param("target", "DELETE FROM links WHERE code = $1", id="a row that the copy has lost"),
    ],
)
async def test_what_no_catch_up_brings_is_noticed(
    checked: tuple[Executor, list[str]], side: str, statement: str
) -> None:
    """A row change after CHECK that CATCH_UP cannot detect makes the move roll back."""
    executor, codes = checked
    await getattr(executor.pair, side).execute(statement, codes[0])
    with pytest.raises(Refused, match="the copy differs"):
        await executor.run(PROGRAM[FROZEN:])
    assert await state_of(executor) == {"owned"}


async def test_a_copy_that_differs_makes_no_pause(
    ready: Settings, store: Store, new_link: NewLinkMaker
) -> None:
    """If the copy differs at CHECK, the move is rolled back without a pause."""
    owners = place(store.shards.topology)
    code = next(code for n in range(100) if owners[slot_of(code := f"c{n}")] == "db0")
    await store.links.create(new_link(code))
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    ends = ShardPair(await asyncpg.connect(dsns["db0"]), await asyncpg.connect(dsns["db1"]), ())
    ends.tables = await sharded_tables(ends.source)
    executor = Executor(Batch("db0", "db1", (slot_of(code),), (1,)), ends)
    before = PROGRAM.index(Step.CHECK)
    await executor.run(PROGRAM[:before])
    await ends.target.execute("UPDATE links SET title = 'other' WHERE code = $1", code)
    with pytest.raises(Refused, match="the copy differs"):
        await executor.run(PROGRAM[before:])
    assert executor.pause_ms is None
    assert await state_of(executor) == {"owned"}
    await ends.source.close()
    await ends.target.close()
