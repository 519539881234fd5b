"""Fixtures over the local cluster: real servers, started once, and clean databases for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster

_NUMBERS = itertools.count(1)
_REDIS_DATABASES = 15  # 1 to 15; 0 is left to programs that are started whole

for variable in [name for name in os.environ if name.startswith("SNAPURL_")]:
    del os.environ[variable]  # the settings of whoever runs the tests must not decide them


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Four PostgreSQL servers (db0 to db3) and a Redis. A test that stops one may leave it so."""
    async with LocalCluster(tmp_path_factory.mktemp("cluster"), durable=False) as running:
        yield running


@pytest.fixture
async def fresh_shards(cluster: LocalCluster) -> AsyncIterator[dict[str, str]]:
    """Name -> DSN of an empty database on each of the four servers, gone after the test."""
    await _revive(cluster)
    database = f"test_{os.getpid()}_{next(_NUMBERS)}"
    await _on_all(cluster, f"CREATE DATABASE {database}")
    yield {name: cluster.shard(name).dsn(database) for name in cluster.dsns}
    await _revive(cluster)
    await _on_all(cluster, f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
async def redis_url(cluster: LocalCluster) -> str:
    """An empty logical database of the Redis."""
    await _revive(cluster)
    url = cluster.redis.url(1 + next(_NUMBERS) % _REDIS_DATABASES)
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture
def make_settings(fresh_shards: dict[str, str], redis_url: str, tmp_path: Path) -> Callable[..., Settings]:
    """Settings over `fresh_shards` and `redis_url`, with whatever else a test wants to set."""

    def make(**overrides: object) -> Settings:
        shards = " ".join(f"{name}={dsn}" for name, dsn in fresh_shards.items())
        return load_settings(**{"shards": shards, "redis_url": redis_url, "home": tmp_path, **overrides})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings over `fresh_shards` and `redis_url`, else as they come."""
    return make_settings()


async def _revive(cluster: LocalCluster) -> None:
    """Starts again what an earlier test has stopped or killed."""
    for server in cluster.servers():
        if server.pid is None:
            await server.start()


async def _on_all(cluster: LocalCluster, statement: str) -> None:
    await asyncio.gather(*(_on_one(cluster.shard(name).dsn("postgres"), statement) for name in cluster.dsns))


async def _on_one(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
