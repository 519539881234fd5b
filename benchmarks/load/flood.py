"""A flood of clicks on many links, at a higher rate than the load generator can reach over HTTP.

It feeds the tallies and shippers of WORKERS workers at a steady rate. Redis, the click consumer and the shards are
configured as shipped. If they cannot keep up, the lag, the stream or the memory of the consumer grows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.accounting import cpu_seconds, resident_mib
from benchmarks.bed import Bed, consuming
from benchmarks.load.measure import COUNTED_S_MAX, counted_clicks
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import code_of
from benchmarks.zipf import zipf_numbers
from snapurl.addresses import Clients
from snapurl.clicks.agent_libraries import load
from snapurl.clicks.agents import read_families
from snapurl.clicks.classifier import Classifier
from snapurl.clicks.origins import Origins
from snapurl.clicks.shipper import Shipper
from snapurl.clicks.stream import name_key
from snapurl.clicks.tally import Said, Tally
from snapurl.redis_client import redis_client
from snapurl.tasks import cancel_and_wait

TICK_S = 0.005
REDIS_S = 2.0  # this event loop is sometimes late because it records clicks
LOOK_S = 0.5
DRAWS = 1_000_000
WORKERS = 4
# Clicks per second, and whether their requests say something: then each click has about eight kinds of values.
FLOODS = ((100_000, False), (20_000, True))
AGENTS = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 "
    b"Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)
REFERRERS = (
    None,
    None,
    None,
    b"https://news.example.org/",
    b"https://social.example.com/",
    b"https://mail.example.net/",
)
LANGUAGES = (b"de-DE,de;q=0.9", b"en-US,en;q=0.9", b"fr", b"pt-BR", b"en-GB", b"ja", None)
QUERIES = (None, None, None, b"utm_source=mail&utm_medium=email&utm_campaign=spring", b"qr", b"utm_source=ad")
COUNTRIES = ("DE", "US", "FR", "BR", "GB", "JP", "IN", "AT", "CH", "PL", "NL")
ADDRESSES = 997  # different ones; with a prime number of them they meet all other values


@dataclass(frozen=True, slots=True)
class Observation:
    """One sample: age of the oldest click not in a shard yet, entries in the stream, MiB of the consumer."""

    lag_s: float
    entries: int
    consumer_mib: float


@dataclass(frozen=True, slots=True)
class Flood:
    """Clicks offered and clicks counted. Lag and memory are given for the first and the second half."""

    sources: bool
    per_second: float
    recorded: int
    counted: int
    lag_s: tuple[float, float]
    lag_max_s: float
    entries_max: int
    consumer_mib: tuple[float, float]
    cpu_us: dict[str, float]

    def document(self) -> dict[str, Any]:
        return asdict(self)


async def flood(bed: Bed, links: int, per_second: int, seconds: float, *, sources: bool) -> Flood:
    """Records `per_second` clicks, Zipf-distributed over `links`, and waits until all are counted."""
    settings = bed.settings
    namespace = await bed.fetchval(bed.members[0], "SELECT cluster_id FROM cluster")
    tallies = [Tally(settings.click_codes_max) for _ in range(WORKERS)]
    before = await counted_clicks(bed)
    async with consuming(bed) as consumer, redis_client(settings, REDIS_S) as redis:
        groups = {"consumer": [consumer.pid], **bed.servers()}
        used = cpu_seconds(groups)
        shippers = [
            Shipper(settings, namespace, tally, _classifier(), redis, lambda: datetime.now(UTC))
            for tally in tallies
        ]
        for shipper in shippers:
            await shipper.start()
        observations: list[Observation] = []
        watching = asyncio.create_task(_watch(redis, name_key(namespace), consumer.pid, observations))
        recorded = await _record(tallies, _clicks(links, sources), per_second, seconds)
        for shipper in shippers:
            await shipper.stop()
        await cancel_and_wait(watching)
        counted = await _counted(bed, before + recorded) - before
        cpu = cpu_seconds(groups)
    half = len(observations) // 2
    if not half:
        raise BenchmarkFailed("the flood of clicks was over before it could be looked at")
    return Flood(
        sources=sources,
        per_second=recorded / seconds,
        recorded=recorded,
        counted=counted,
        lag_s=(
            median(each.lag_s for each in observations[:half]),
            median(each.lag_s for each in observations[half:]),
        ),
        lag_max_s=max(each.lag_s for each in observations),
        entries_max=max(each.entries for each in observations),
        consumer_mib=(observations[half].consumer_mib, observations[-1].consumer_mib),
        cpu_us={name: (cpu[name] - used[name]) / recorded * 1e6 for name in groups},
    )


def _classifier() -> Classifier:
    return Classifier(load() or read_families, Origins(Clients((), print), "").read)


def _clicks(links: int, sources: bool) -> Iterator[tuple[str, Said | None, str]]:
    """Yields code, what the request says, and its address, without end."""
    codes = [code_of(number) for number in zipf_numbers(links, DRAWS, seed=13)]
    if not sources:
        return zip(itertools.cycle(codes), itertools.repeat(None), itertools.repeat(""))
    said = zip(*map(itertools.cycle, (QUERIES, REFERRERS, AGENTS, LANGUAGES, (None,))), strict=False)
    addresses = [f"10.0.{n >> 8}.{n & 255} {COUNTRIES[n % len(COUNTRIES)]}" for n in range(ADDRESSES)]
    return zip(itertools.cycle(codes), said, itertools.cycle(addresses), strict=False)


async def _record(
    tallies: Sequence[Tally],
    clicks: Iterator[tuple[str, Said | None, str]],
    per_second: int,
    seconds: float,
) -> int:
    """Records at that rate; a late tick records the clicks it has missed. Returns the number recorded."""
    began, recorded = monotonic(), 0
    turns = itertools.cycle(tallies)
    while (past_s := monotonic() - began) < seconds:
        due = int(past_s * per_second) - recorded
        for click in itertools.islice(clicks, due):
            next(turns).record(*click)
        recorded += due
        await asyncio.sleep(TICK_S)
    return recorded - sum(tally.dropped for tally in tallies)


async def _watch(redis: Any, key: str, consumer: int, observations: list[Observation]) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        name = await redis.get(key)
        if name is None:
            continue
        first = await redis.xrange(name, "-", "+", 1)
        now_s, us = await redis.time()
        lag_s = now_s + us / 1e6 - int(first[0][0].partition(b"-")[0]) / 1000 if first else 0.0
        observations.append(Observation(max(0.0, lag_s), await redis.xlen(name), resident_mib(consumer)))


async def _counted(bed: Bed, expected: int) -> int:
    """Returns the clicks in the shards, once there are as many as expected or the time is up."""
    deadline = monotonic() + COUNTED_S_MAX
    while True:
        found = await counted_clicks(bed)
        if found >= expected or monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)
