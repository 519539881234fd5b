"""The scenarios: requests, subjects and conditions. Each is one row of `SCENARIOS`."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from benchmarks.bed import Bed
from benchmarks.load.sample import Shape
from benchmarks.load.subjects import Start, flask_stack, nginx, plain_sanic, sanic_redis, snapurl
from benchmarks.seeding import code_of
from benchmarks.zipf import zipf_numbers

URL = "https://www.example.org/articles/2026/a-new-one?utm_source=benchmark"
CREATE = "/api/v1/links"
BULK = "/api/v1/links/bulk"
BULK_LINKS = 1_000
MIXED_EVERY = 101
NO_L1 = (("SNAPURL_L1_LINKS", "0"),)
SCAN_COUNT = 5_000


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run: links seeded, draws of a Zipf sequence, seconds of a run and of its warm-up, runs."""

    links: int
    draws: int
    seconds: float
    warm_up_s: float
    runs: int


async def nothing(bed: Bed) -> None:
    """Does nothing: no preparation."""


async def forget_in_redis(bed: Bed) -> None:
    """Empties L2, so that reads reach the shards."""
    async with Redis.from_url(bed.cluster.redis_url) as client:
        batch = []
        async for key in client.scan_iter(match="snapurl:*:link:*", count=SCAN_COUNT):
            batch.append(key)
            if len(batch) == SCAN_COUNT:
                await client.unlink(*batch)
                batch.clear()
        if batch:
            await client.unlink(*batch)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`shape` makes the requests; `prepare` runs before each run. One-worker scenarios pin the server to one core
    and the load generator to another."""

    name: str
    what: str
    workers: int
    subjects: Sequence[Start]
    shape: Callable[[Scale], Shape]
    settings: tuple[tuple[str, str], ...] = ()
    prepare: Callable[[Bed], Awaitable[None]] = nothing
    warm_ups: int = 1  # each lasts the scale's `warm_up_s`
    per_request: int = 1


def _hot(scale: Scale) -> Shape:
    return Shape((f"/{code_of(0)}",))


def _zipf(scale: Scale) -> Shape:
    numbers = zipf_numbers(scale.links, scale.draws, seed=7)
    return Shape([f"/{code_of(number)}" for number in numbers])


def _each(scale: Scale) -> Shape:
    """Requests every link once, in random order."""
    numbers = list(range(scale.links))
    random.Random(11).shuffle(numbers)
    return Shape([f"/{code_of(number)}" for number in numbers], connections=32)


def _few(scale: Scale) -> Shape:
    """Requests 2,000 links in turn; even on a slow machine the warm-up puts all of them into Redis."""
    return Shape([f"/{code_of(number)}" for number in range(min(2_000, scale.links))])


def _absent(scale: Scale) -> Shape:
    return Shape([f"/absent{number:07d}" for number in range(scale.draws)], connections=32)


def _create(scale: Scale) -> Shape:
    return Shape(connections=32, post_path=CREATE, body=_body({"url": URL}), post_every=1)


def _bulk(scale: Scale) -> Shape:
    links = [{"url": f"{URL}&n={number}"} for number in range(BULK_LINKS)]
    return Shape(connections=8, post_path=BULK, body=_body({"links": links}), post_every=1)


def _mixed(scale: Scale) -> Shape:
    return Shape(_zipf(scale).paths, 64, CREATE, _body({"url": URL}), MIXED_EVERY)


def _body(value: object) -> bytes:
    return json.dumps(value).encode()


SCENARIOS = (
    Scenario("hot", "one link, one worker on one core", 1, (snapurl, nginx, plain_sanic), _hot),
    Scenario("hot2", "one link, two workers", 2, (snapurl, nginx, flask_stack), _hot),
    Scenario("zipf", "Zipf over all links, two workers", 2, (snapurl, flask_stack), _zipf, warm_ups=6),
    Scenario("warm", "from Redis, one worker on one core", 1, (snapurl, sanic_redis), _few, NO_L1),
    Scenario("cold", "from the shards, two workers", 2, (snapurl,), _each, NO_L1, forget_in_redis, 0),
    Scenario("missing", "no such link, two workers", 2, (snapurl,), _absent, warm_ups=0),
    Scenario("create", "one link per request, durable, two workers", 2, (snapurl, flask_stack), _create),
    Scenario(
        "bulk", "1,000 links per request, durable, two workers", 2, (snapurl,), _bulk, per_request=BULK_LINKS
    ),
    Scenario("mixed", "100 redirects (Zipf) to one create, two workers", 2, (snapurl, flask_stack), _mixed),
)
