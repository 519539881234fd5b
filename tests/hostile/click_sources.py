"""Clicks with made-up referrers and user agents on the links of one shard, from a few connections without a key."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.bed import Bed, made, serving
from benchmarks.client import Connection
from ring.slots import slot_of
from snapurl.clicks.lag import LagReader
from tests.hostile.table import Figure
from tests.support.waits import HANG_S, until

CONNECTIONS = 4
PIPELINED = 50
REQUESTS_PER_S = 16_667  # 1,000,000 in a minute
ATTACKED = 20  # links
LAG_S_MAX = 5.0
SHARD = "db1"
OWNED = "SELECT array_agg(slot) FROM slots WHERE state = 'owned'"
CLICKS = "SELECT coalesce(sum(clicks), 0)::bigint FROM click_days WHERE code = ANY($1)"


def made_up(code: str, number: int) -> bytes:
    """Returns a click that no other request resembles."""
    return (
        f"GET /{code} HTTP/1.1\r\nHost: x\r\nReferer: https://{number}.{'made-up-' * 20}.example/{number}\r\n"
        f"User-Agent: Mozilla/5.0 (Made; Up {number}) Firefox/{number}.0\r\n\r\n"
    ).encode()


async def click_from_one_connection(
    port: int, codes: Sequence[str], numbers: Iterator[int], may_go_on: Callable[[], Awaitable[bool]]
) -> int:
    """Sends pipelined clicks while it may go on. Returns how many were redirected, which is all of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    redirected = 0
    try:
        while await may_go_on():
            batch = list(itertools.islice(numbers, PIPELINED))
            writer.write(b"".join(made_up(codes[number % len(codes)], number) for number in batch))
            for _ in batch:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
                assert head.startswith(b"HTTP/1.1 302 "), head
            redirected += len(batch)
    finally:
        writer.close()
    return redirected


async def attack(ports: Sequence[int], codes: Sequence[str], may_go_on: Callable[[], Awaitable[bool]]) -> int:
    """Attacks until `may_go_on` says no. Returns how many clicks were redirected."""
    numbers = itertools.count()
    clients = (
        click_from_one_connection(ports[client % len(ports)], codes, numbers, may_go_on)
        for client in range(CONNECTIONS)
    )
    return sum(await asyncio.gather(*clients))


class Pace:
    """Lets REQUESTS_PER_S requests go, for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self._batches = 0

    async def __call__(self) -> bool:
        self._batches += 1
        due = self._began + self._batches * PIPELINED / REQUESTS_PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        return self._batches * PIPELINED <= REQUESTS_PER_S * self._seconds


async def lags(bed: Bed, ended: asyncio.Event) -> list[tuple[float, float]]:
    """Returns (time, age in seconds of the oldest click that is not counted), twice a second."""
    cluster_id = await bed.fetchval(SHARD, "SELECT cluster_id FROM cluster")
    found = []
    async with Redis.from_url(bed.cluster.redis_url) as redis:
        reader = LagReader(str(cluster_id), redis)
        while not ended.is_set():
            found.append((time.monotonic(), (await reader.read()).seconds))
            await asyncio.sleep(0.5)
    return found


async def modest(bed: Bed, port: int, code: str, ended: asyncio.Event) -> list[float]:
    """Clicks on another link of the shard now and then. Returns the seconds until each click was counted."""
    waits: list[float] = []
    connection = Connection("127.0.0.1", port)
    while not ended.is_set():
        answer = await connection.get(f"/{code}")
        assert answer.status == 302, answer
        began = time.monotonic()

        async def is_counted() -> bool:
            return int(await bed.fetchval(SHARD, CLICKS, [code])) > len(waits)

        await until(is_counted)
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
    await connection.close()
    return waits


def codes_in(slots: Iterable[int], count: int) -> list[str]:
    """Returns codes of links in these slots."""
    owned = set(slots)
    candidates = (f"click-{number}" for number in itertools.count())
    return list(itertools.islice((code for code in candidates if slot_of(code) in owned), count))


async def make_links(port: int, codes: Iterable[str]) -> None:
    connection = Connection("127.0.0.1", port)
    for code in codes:
        answer = await connection.post("/api/v1/links", {"url": "https://example.org/", "alias": code})
        assert answer.status == 201, answer
    await connection.close()


async def run(seconds: float) -> list[Figure]:
    """Sends 1,000,000 clicks per minute, each with a referrer and a user agent of its own."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="snapurl-hostile-"))
        bed = await stack.enter_async_context(made(Path(home), durable=False))
        service = await stack.enter_async_context(serving(bed, 2))
        other, *attacked = codes_in(await bed.fetchval(SHARD, OWNED), ATTACKED + 1)
        await make_links(service.port, [other, *attacked])
        ended = asyncio.Event()
        watching = asyncio.gather(lags(bed, ended), modest(bed, service.port, other, ended))
        began = time.monotonic()
        sent = await attack([service.port], attacked, Pace(seconds))
        took = time.monotonic() - began
        ended.set()
        measured, waits = await watching

        async def all_counted() -> bool:
            return int(await bed.fetchval(SHARD, CLICKS, attacked)) >= sent

        await until(all_counted)
        counted = int(await bed.fetchval(SHARD, CLICKS, attacked))
        stored = await bed.fetchval(
            SHARD,
            "SELECT count(*) FROM click_days d, "
            "clicks_values_v1(clicks_merge_v1(d.sources, coalesce(d.unmerged, '')), NULL, "
            "'{browser,referrer}') WHERE d.code = ANY($1)",
            attacked,
        )
    late = max(lag for at, lag in measured if at > began + took / 2)
    return [
        Figure("clicks with sources of their own", f"{sent:,} in {took:.0f} s", "", True),
        Figure("of them counted", f"{counted:,}", "all", counted == sent),
        Figure("lag, second half", f"{late:.1f} s", f"{LAG_S_MAX:g} s", late <= LAG_S_MAX),
        Figure(
            f"wait of another link's clicks ({len(waits)})",
            f"at most {max(waits):.1f} s",
            f"{LAG_S_MAX:g} s",
            max(waits) <= LAG_S_MAX,
        ),
        Figure("sources stored", f"{stored:,}", f"{ATTACKED * 102:,}", stored <= ATTACKED * 102),
    ]
