"""Deliveries of clicks to slow shards: bounded, divided, and exact although consumers are killed meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.model import SourceKind
from tests.integration.clicks.test_clicks import counted, environ, shipper, until_counted
from tests.integration.store.conftest import Store, direct, ready, store
from tests.support.clicks import said
from tests.support.programs import Process, start
from tests.support.waits import HANG_S, until

__all__ = ["direct", "ready", "store"]

SLOW = "db1"
TIMEOUT_MS = 1_500
TOO_LONG = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON click_days FOR EACH ROW
  WHEN (NEW.code = '{code}' AND NEW.unmerged LIKE '%slow.example%') EXECUTE FUNCTION wait()
"""


@asynccontextmanager
async def consumer(settings: Settings, *constants: str, **variables: str) -> AsyncIterator[Process]:
    """Runs a consumer process whose constants have other values: `lane,BARE_S,1.0`."""
    process = await start("tests.support.consumer", *constants, env={**environ(settings), **variables})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), HANG_S)
    assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM)


def impatient(settings: Settings, *constants: str) -> Any:
    """Runs a consumer that gives a statement up soon."""
    return consumer(settings, *constants, SNAPURL_STATEMENT_TIMEOUT_MS=str(TIMEOUT_MS))


def codes_at(store: Store, shard: str, count: int) -> list[str]:
    """Returns codes of different slots at the shard."""
    found: dict[int, str] = {}
    for number in range(100 * count):
        code = f"slow{number}"
        if store.shards.map.owner(slot_of(code)) == shard:
            found.setdefault(slot_of(code), code)
    return list(found.values())[:count]


async def is_counted(store: Store, codes: Counter[str]) -> bool:
    return await counted(store, codes) == codes


async def differ(store: Store, codes: Counter[str], before: Counter[str]) -> bool:
    return await counted(store, codes) != before


async def sent(tally: Tally) -> None:
    await until(lambda: not len(tally))


@pytest.mark.long
@pytest.mark.parametrize(
    "constant",
    [
        "backlog,ROWS_PER_CALL,1",
        "backlog,SOURCES_PER_CALL,1",
        "backlog,BYTES_PER_CALL,1",
        "consumer,ENTRIES_PER_READ,1",
        "consumer,READ_BYTES_MAX,1",
        "consumer,BACKLOG_ROWS_MAX,1",
    ],
)
async def test_each_bound_divides_what_is_delivered_and_loses_nothing(
    store: Store, ready: Settings, constant: str
) -> None:
    """With any bound of a read or a call at its lowest, all clicks and sources are counted once, although consumers
    are killed in between."""
    codes = codes_at(store, SLOW, 2) + codes_at(store, "db2", 2)
    expected: Counter[str] = Counter()
    often = ready.model_copy(update={"click_flush_ms": 5})
    async with shipper(often, store.shards.topology.cluster_id) as tally:
        for round_ in range(3):
            for _ in range(3):
                for code in codes:
                    for referrer in ("a.example", "b.example"):
                        tally.record(code, said(referrer))
                        expected[code] += 1
                await sent(tally)
            before = await counted(store, expected)
            async with consumer(ready, constant) as process:
                await until(partial(differ, store, expected, before))
                if round_ < 2:
                    process.kill()
        async with consumer(ready, constant):
            await until_counted(store, expected)
    for code in codes:
        assert await store.told(code) == {"a.example": 9, "b.example": 9}
        assert await store.told(code, SourceKind.BROWSER) == {"firefox": 18}


async def test_sources_that_wait_are_bounded_and_their_clicks_are_counted(
    store: Store, ready: Settings
) -> None:
    """Beyond the bound of sources that wait, clicks wait and are counted without theirs."""
    (code,) = codes_at(store, SLOW, 1)
    async with shipper(ready, store.shards.topology.cluster_id) as tally:
        for number in range(90):
            tally.record(code, said(f"{number}.example"))
    async with consumer(ready, "backlog,SOURCES_MAX,50"):
        await until_counted(store, Counter({code: 90}))
    assert await store.told(code) == await store.told(code, SourceKind.BROWSER) == {}


async def test_a_slot_whose_sources_take_too_long_is_isolated_and_counted_without_them(
    store: Store, ready: Settings, direct: dict[str, Any]
) -> None:
    """While a link's sources take too long, the other links of its shard are counted, then its own clicks, without
    their sources; later ones have sources again. A consumer that is killed in between changes nothing."""
    stuck, *others = codes_at(store, SLOW, 9)
    expected: Counter[str] = Counter()
    often = ready.model_copy(update={"click_flush_ms": 5})
    async with shipper(often, store.shards.topology.cluster_id) as tally:
        tally.record(stuck, said("first.example"))
        expected[stuck] += 1
        async with impatient(ready):
            await until_counted(store, expected)
        await direct[SLOW].execute(TOO_LONG.format(code=stuck))
        for _ in range(4):
            for code in (stuck, *others):
                tally.record(code, said("slow.example"))
                expected[code] += 1
            await sent(tally)
        async with impatient(ready) as process:
            await until(lambda: is_counted(store, Counter({code: expected[code] for code in others})))
            process.kill()
        async with impatient(ready, "lane,BARE_S,3600.0"):
            await until_counted(store, expected)
        async with impatient(ready, "lane,BARE_S,1.0"):
            for code in (stuck, *others):
                tally.record(code, said("later.example"))
                expected[code] += 1

            async def has_its_source() -> bool:
                return "later.example" in await store.told(stuck)

            await until(has_its_source)
            await until_counted(store, expected)
    assert await store.told(stuck) == {"first.example": 1, "later.example": 1}


async def test_a_slot_that_cannot_be_counted_delays_no_other(
    store: Store, ready: Settings, direct: dict[str, Any]
) -> None:
    """While a link's clicks themselves are locked, those of the other links of its shard are counted, new ones too;
    its own follow when it is unlocked."""
    stuck, *others = codes_at(store, SLOW, 9)
    expected = Counter({stuck: 1})
    async with shipper(ready, store.shards.topology.cluster_id) as tally:
        tally.record(stuck)
        async with impatient(ready):
            await until_counted(store, expected)
        async with impatient(ready):
            async with direct[SLOW].transaction():
                await direct[SLOW].execute("SELECT FROM click_days WHERE code = $1 FOR UPDATE", stuck)
                for _ in range(3):
                    for code in (stuck, *others):
                        tally.record(code, said("x.example"))
                        expected[code] += 1
                    await until(lambda: is_counted(store, Counter({code: expected[code] for code in others})))
                assert await counted(store, Counter([stuck])) == {stuck: 1}
            await until_counted(store, expected)


async def test_a_shard_that_times_out_delays_no_other_and_loses_nothing(
    store: Store, ready: Settings, direct: dict[str, Any]
) -> None:
    """While every call to one shard times out, the clicks of the other shards are counted; its own follow, each
    once, although the consumer was killed meanwhile."""
    slow, others = codes_at(store, SLOW, 5), codes_at(store, "db2", 5)
    expected: Counter[str] = Counter()
    async with shipper(ready, store.shards.topology.cluster_id) as tally:
        async with direct[SLOW].transaction():
            await direct[SLOW].execute("LOCK TABLE click_cursor IN EXCLUSIVE MODE")
            for _ in range(2):
                async with impatient(ready) as process:
                    for _ in range(3):
                        for code in (*slow, *others):
                            tally.record(code, said("x.example"))
                            expected[code] += 1
                        await until(
                            lambda: is_counted(store, Counter({code: expected[code] for code in others}))
                        )
                    process.kill()
        async with impatient(ready):
            await until_counted(store, expected)
