"""A store on four fresh shards, and a plain connection to each of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.model import ClicksBySlot, LinkFields, NewLink, SourceKind
from snapurl.periods import DateRange
from snapurl.store.accounts import AccountStore
from snapurl.store.clicks import ClickStore
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.keys import KeyStore
from snapurl.store.links import LinkStore
from snapurl.store.statistics import StatisticsStore
from tests.support.click_totals import assert_groups_are_sums, assert_totals_are_sums

VALUES = 50  # that tests ask for


@dataclass
class Store:
    """One process's view of the shards."""

    shards: Shards
    router: Router
    links: LinkStore
    keys: KeyStore
    accounts: AccountStore
    clicks: ClickStore
    statistics: StatisticsStore
    settings: Settings

    @classmethod
    async def open(cls, settings: Settings) -> Store:
        shards = await Shards.connect(settings)
        router = Router(shards, settings.busy_wait_ms)
        return cls(
            shards,
            router,
            LinkStore(shards, router),
            KeyStore(shards, router),
            AccountStore(shards, router),
            ClickStore(shards, router),
            StatisticsStore(shards, router),
            settings,
        )

    async def clicks_by_day(self, code: str) -> dict[date, int]:
        """Returns the clicks of a code by UTC day, without days that have none."""
        return {item.day: item.clicks for item in await self.statistics.days_of_link(code, DateRange())}

    async def clicks_of(self, code: str) -> int:
        return sum((await self.clicks_by_day(code)).values())

    async def told(self, code: str, kind: SourceKind = SourceKind.REFERRER) -> dict[str, int]:
        """Returns the clicks of a code by the values of a kind, most clicks first."""
        found = await self.statistics.values_of_link(code, (None, None), [kind], VALUES)
        return {item.value: item.clicks for item in found.values}

    async def apply_clicks(self, stream: str, rows: ClicksBySlot) -> set[int]:
        """Delivers clicks to the believed owners. Returns the slots that are counted."""
        groups = self.router.group(list(rows), int)
        calls = (
            self.clicks.apply(name, stream, {slot: rows[slot] for slot in slots})
            for name, slots in groups.items()
        )
        deliveries = await asyncio.gather(*calls)
        assert not any(delivery.fault for delivery in deliveries)
        return set().union(*(delivery.counted for delivery in deliveries))


@pytest.fixture
def ready(settings: Settings) -> Settings:
    """Settings of a cluster on `fresh_shards`, which this fixture migrates and initialises."""
    return settings


@pytest.fixture
async def store(ready: Settings) -> AsyncIterator[Store]:
    opened = await Store.open(ready)
    yield opened
    await opened.shards.close()


@pytest.fixture
async def direct(ready: Settings) -> AsyncIterator[dict[str, Any]]:
    """A plain connection to each shard, by name."""
    async with AsyncExitStack() as stack:
        connections = {}
        for item in ready.shard_dsns:
            connections[item.name] = await asyncpg.connect(item.dsn)
            stack.push_async_callback(connections[item.name].close)
        yield connections


NewLinkMaker = Callable[..., NewLink]


@pytest.fixture
def new_link() -> NewLinkMaker:
    def make(code: str, url: str = "https://example.org/", owner: str = "", **fields: Any) -> NewLink:
        return NewLink(code, LinkFields(url, **fields), owner, uuid.uuid4())

    return make


@pytest.fixture
def statistics(store: Store) -> StatisticsStore:
    return StatisticsStore(store.shards, store.router)


@pytest.fixture
async def sums_hold(direct: dict[str, Any]) -> AsyncIterator[None]:
    """After the test totals are sums, and nothing tells more than there are clicks."""
    yield
    for shard in direct.values():
        await assert_totals_are_sums(shard)
    await assert_groups_are_sums(direct.values())
