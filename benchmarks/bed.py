"""The test bed of a measurement: an initialised local cluster and the project's programs on it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.programs import Program, answering, running
from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all

HOST = "127.0.0.1"


@dataclass
class Bed:
    """A running cluster. `members` are the shards of the topology as the benchmark has changed it."""

    cluster: LocalCluster
    members: list[str]
    directory: Path

    @property
    def dsns(self) -> dict[str, str]:
        """Returns the DSN of each member by name."""
        return {name: self.cluster.dsns[name] for name in self.members}

    @property
    def settings(self) -> Settings:
        return load_settings(shards=_listed(self.dsns), redis_url=self.cluster.redis_url)

    def environ(self, **variables: str) -> dict[str, str]:
        """Returns the environment of a process that uses the members.

        Creation is anonymous and unlimited unless `variables` say otherwise.
        """
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")},
            "SNAPURL_SHARDS": _listed(self.dsns),
            "SNAPURL_REDIS_URL": self.cluster.redis_url,
            "SNAPURL_ANONYMOUS_CREATION": "true",
            "SNAPURL_LIMIT_CREATE": "none",
            "SNAPURL_LIMIT_MISSING": "none",
            "SNAPURL_LOG_LEVEL": "warning",
            **variables,
        }

    def log(self, name: str) -> Path:
        """Returns the file for a program's output."""
        return self.directory / f"{name}.log"

    async def fetchval(self, shard: str, query: str, *arguments: object) -> Any:
        """Returns one value from one shard."""
        connection = await asyncpg.connect(self.cluster.dsns[shard])
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def fetchrow(self, shard: str, query: str, *arguments: object) -> Any:
        """Returns one row from one shard."""
        connection = await asyncpg.connect(self.cluster.dsns[shard])
        try:
            return await connection.fetchrow(query, *arguments)
        finally:
            await connection.close()

    def servers(self) -> dict[str, list[int]]:
        """Returns the root processes of PostgreSQL and Redis by group, for `accounting`."""
        postgres = [pid for name in self.cluster.dsns if (pid := self.cluster.shard(name).pid) is not None]
        redis = self.cluster.redis.pid
        return {"postgres": postgres, "redis": [redis] if redis is not None else []}

    async def total(self, query: str) -> int:
        """Returns the sum of a number over the members."""
        return sum(await asyncio.gather(*(self.fetchval(name, query) for name in self.members)))


@asynccontextmanager
async def made(directory: Path, shards: int = 4, *, durable: bool = True) -> AsyncIterator[Bed]:
    """Starts a new cluster of `shards` empty shards under `directory` and stops it at the end of the block."""
    names = [f"db{number}" for number in range(shards)]
    async with LocalCluster(directory / "cluster", names, durable=durable, loopback=True) as cluster:
        bed = Bed(cluster, names, directory)
        await migrate_all(bed.settings)
        await ensure_cluster(bed.settings)
        yield bed


@dataclass
class Service:
    """HTTP workers with their supervisor, and a click consumer, as in production."""

    port: int
    metrics_port: int
    workers: Program
    consumer: Program

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@asynccontextmanager
async def consuming(bed: Bed, **variables: str) -> AsyncIterator[Program]:
    """Runs `snapurl clicks`."""
    argv = [sys.executable, "-m", "snapurl.clicks"]
    async with running(
        "click consumer", argv, bed.log("consumer"), environ=bed.environ(**variables)
    ) as consumer:
        yield consumer


@asynccontextmanager
async def serving(
    bed: Bed, workers: int, *, cores: Sequence[int] = (), **variables: str
) -> AsyncIterator[Service]:
    """Runs `snapurl serve` and `snapurl clicks`. The workers are pinned to `cores`, the consumer is not."""
    port = free_port(set())
    metrics_port = free_port({port})
    environ = bed.environ(
        SNAPURL_PORT=str(port),
        SNAPURL_METRICS_PORT=str(metrics_port),
        SNAPURL_WORKERS=str(workers),
        **variables,
    )
    serve = [sys.executable, "-m", "snapurl", "serve"]
    async with (
        consuming(bed, **variables) as consumer,
        running("snapurl serve", serve, bed.log("serve"), environ=environ, cores=cores) as program,
    ):
        await answering(program, f"http://{HOST}:{port}/health/ready")
        yield Service(port, metrics_port, program, consumer)


def _listed(dsns: dict[str, str]) -> str:
    return " ".join(f"{name}={dsn}" for name, dsn in sorted(dsns.items()))
