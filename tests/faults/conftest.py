"""One pair of shards for all faults; a failed test is followed by a new pair."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from snapurl.local.cluster import LocalCluster
from tests.faults.pair import Pair, open_pair

_NUMBERS = itertools.count(1)


class Pairs:
    """Holds the current pair."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._stack = contextlib.AsyncExitStack()
        self._pair: Pair | None = None

    async def whole(self) -> Pair:
        if self._pair is None or not self._pair.whole:
            await self.close()
            for server in self._cluster.servers():
                if server.pid is None:
                    await server.start()
            name = f"faults_{os.getpid()}_{next(_NUMBERS)}"
            self._pair = await self._stack.enter_async_context(open_pair(self._cluster, name))
        return self._pair

    async def close(self) -> None:
        await self._stack.aclose()
        self._pair = None


@pytest.fixture(scope="session")
async def pairs(cluster: LocalCluster) -> AsyncIterator[Pairs]:
    kept = Pairs(cluster)
    yield kept
    await kept.close()


@pytest.fixture
async def pair(pairs: Pairs) -> Pair:
    return await pairs.whole()
