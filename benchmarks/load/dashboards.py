"""Dashboards that are open on the cluster page: each reads the stream of events, as a browser does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from benchmarks.bed import HOST, Bed
from benchmarks.programs import BenchmarkFailed
from snapurl.http.event_streams import STREAMS_PER_CLIENT_MAX
from snapurl.keys import create_key

DASHBOARDS_MAX = STREAMS_PER_CLIENT_MAX  # all come from one address, and may meet one worker
ANSWER_S_MAX = 60.0
EVENT = "data: "


@asynccontextmanager
async def watched(bed: Bed, port: int, dashboards: int) -> AsyncIterator[None]:
    """Keeps that many dashboards open during the block, each of which has got an event before it.

    Raises BenchmarkFailed if one of them ends meanwhile, or gets no event.
    """
    url = f"http://{HOST}:{port}"
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, headers={"Origin": url}, timeout=ANSWER_S_MAX, limits=limits)
        )
        key = await create_key(bed.settings, "dashboards", ["admin"])
        login = await client.post("/ui/login", data={"key": key})
        if login.status_code != 303:
            raise BenchmarkFailed(f"the dashboard answers {login.status_code} to a login")
        seen = [asyncio.Event() for _ in range(dashboards)]
        readers = [asyncio.create_task(_read(client, event)) for event in seen]
        try:
            await asyncio.wait_for(_all_have_seen(seen, readers), ANSWER_S_MAX)
            for event in seen:
                event.clear()
            yield
            await asyncio.wait_for(_all_have_seen(seen, readers), ANSWER_S_MAX)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(client: httpx.AsyncClient, seen: asyncio.Event) -> None:
    """Reads events until the stream ends."""
    async with client.stream("GET", "/ui/cluster/events") as answer:
        if answer.status_code != 200:
            raise BenchmarkFailed(f"the stream of events answers {answer.status_code}")
        async for line in answer.aiter_lines():
            if line.startswith(EVENT):
                seen.set()


async def _all_have_seen(seen: list[asyncio.Event], readers: list[asyncio.Task[None]]) -> None:
    """Waits until each dashboard has got an event. Raises BenchmarkFailed if a stream has ended."""
    everything = asyncio.ensure_future(asyncio.gather(*(event.wait() for event in seen)))
    ended = asyncio.ensure_future(asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED))
    try:
        await asyncio.wait((everything, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise BenchmarkFailed("a dashboard's stream of events has ended")
    finally:
        everything.cancel()
        ended.cancel()
