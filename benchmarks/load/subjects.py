"""The measured servers, SnapURL and its peers. Each runs for its scenario only; all use the same cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from benchmarks.bed import HOST, Bed, serving
from benchmarks.peers.modulo import DATABASE, SCHEMA, shard_of
from benchmarks.peers.nginx import nginx_command
from benchmarks.programs import BenchmarkFailed, Program, answering, running
from benchmarks.seeding import code_of, url_of
from snapurl.local.free_ports import free_port

ROOT = Path(__file__).parents[2]
PEER_REDIS_DATABASE = 1
PLAIN_KEY = "plain:"
REDIS_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that listens on `port`. `groups` are its root processes, by the group that their cost belongs to.

    `metrics_port` is that of SnapURL, whose clicks are checked; None for a peer. `beside` is what goes on during
    its runs.
    """

    name: str
    port: int
    workers: int
    groups: Mapping[str, Sequence[int]]
    metrics_port: int | None = None
    beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a subject runs: its cores (none: any), its settings if it is SnapURL, and the number of links."""

    workers: int
    cores: Sequence[int] = ()
    settings: tuple[tuple[str, str], ...] = ()
    links: int = 1


Start = Callable[[Bed, Conditions], AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def snapurl(bed: Bed, how: Conditions) -> AsyncIterator[Subject]:
    """Runs SnapURL as shipped: `snapurl serve` and a click consumer."""
    async with serving(bed, how.workers, cores=how.cores, **dict(how.settings)) as service:
        groups = {"service": [service.workers.pid], "consumer": [service.consumer.pid]}
        yield Subject("SnapURL", service.port, how.workers, {**groups, **bed.servers()}, service.metrics_port)


@asynccontextmanager
async def nginx(bed: Bed, how: Conditions) -> AsyncIterator[Subject]:
    """Runs nginx, the upper limit."""
    port = free_port(set())
    command = nginx_command(bed.directory, port, how.workers, url_of(code_of(0)))
    async with _one_program("nginx", command, port, bed, how) as subject:
        yield subject


@asynccontextmanager
async def plain_sanic(bed: Bed, how: Conditions) -> AsyncIterator[Subject]:
    """Runs a Sanic handler that answers from memory."""
    _one_worker("a plain Sanic handler", how)
    port = free_port(set())
    command = [sys.executable, "-m", "benchmarks.peers.sanic_plain", str(port)]
    async with _one_program("plain Sanic", command, port, bed, how) as subject:
        yield subject


@asynccontextmanager
async def sanic_redis(bed: Bed, how: Conditions) -> AsyncIterator[Subject]:
    """Runs a Sanic handler with one Redis GET."""
    _one_worker("a plain Sanic handler", how)
    await _fill_redis(bed.cluster.redis.url(PEER_REDIS_DATABASE), PLAIN_KEY, how.links)
    port = free_port(set())
    redis_url = bed.cluster.redis.url(PEER_REDIS_DATABASE)
    command = [sys.executable, "-m", "benchmarks.peers.sanic_plain", str(port), redis_url]
    async with _one_program("Sanic + Redis GET", command, port, bed, how) as subject:
        yield subject


@asynccontextmanager
async def flask_stack(bed: Bed, how: Conditions) -> AsyncIterator[Subject]:
    """Runs Flask, gunicorn with gevent, Redis, and one database per server, chosen by SHA-256 modulo."""
    missing = [name for name in ("flask", "gunicorn", "gevent", "psycopg_pool") if not _is_installed(name)]
    if missing:
        raise BenchmarkFailed(f"{', '.join(missing)} not installed (the extra `bench`)")
    databases = await _peer_databases(bed, how.links)
    redis_url = bed.cluster.redis.url(PEER_REDIS_DATABASE)
    port = free_port(set())
    command = [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "gevent", "--workers", str(how.workers)),
        *("--bind", f"{HOST}:{port}", "--keep-alive", "75", "--backlog", "1024", "--log-level", "warning"),
        *("--chdir", str(ROOT), "benchmarks.peers.flask_stack:make_app()"),
    ]
    peer = {"PEER_DATABASES": " ".join(databases), "PEER_REDIS_URL": redis_url}
    async with _one_program("Flask stack", command, port, bed, how, peer) as subject:
        yield subject


def _one_worker(what: str, how: Conditions) -> None:
    if how.workers != 1:
        raise BenchmarkFailed(f"{what} is measured with one worker only")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@asynccontextmanager
async def _one_program(
    name: str,
    command: Sequence[str | Path],
    port: int,
    bed: Bed,
    how: Conditions,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Subject]:
    log = bed.log(name.replace(" ", "-").lower())
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    async with running(name, command, log, environ=everything, cores=how.cores) as program:
        await _answers(program, port)
        yield Subject(name, port, how.workers, {"service": [program.pid], "consumer": [], **bed.servers()})


async def _answers(program: Program, port: int) -> None:
    await answering(program, f"http://{HOST}:{port}/{code_of(0)}")


# -- data of the peers -------------------------------------------------------------------------------------------


async def _fill_redis(url: str, prefix: str, links: int) -> None:
    async with Redis.from_url(url) as client:
        for start in range(0, links, REDIS_BATCH):
            codes = map(code_of, range(start, min(links, start + REDIS_BATCH)))
            await client.mset({prefix + code: url_of(code) for code in codes})


async def _peer_databases(bed: Bed, links: int) -> list[str]:
    """Creates and fills a database on each of the first four servers if it is missing. Returns the DSNs."""
    names = sorted(bed.cluster.dsns)[:4]
    return list(
        await asyncio.gather(*(_peer_database(bed, names, place, links) for place in range(len(names))))
    )


async def _peer_database(bed: Bed, names: list[str], place: int, links: int) -> str:
    server = bed.cluster.shard(names[place])
    admin = await asyncpg.connect(server.dsn("postgres"))
    try:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await admin.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await admin.close()
    dsn = server.dsn(DATABASE)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(SCHEMA)
        codes = [code for code in map(code_of, range(links)) if shard_of(code, len(names)) == place]
        if not codes or await connection.fetchval("SELECT 1 FROM links WHERE code = $1", codes[-1]):
            return dsn
        await connection.execute("TRUNCATE links")
        await connection.copy_records_to_table(
            "links", records=((code, url_of(code)) for code in codes), columns=("code", "url")
        )
        await connection.execute("VACUUM (ANALYZE) links")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return dsn
