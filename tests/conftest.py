"""Fixtures over the local cluster: real servers, started once, and clean databases for each test."""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path

import httpx
import hypothesis
import pytest
from redis.asyncio import Redis

from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.local.system_user import in_namespace
from tests.support.databases import Databases, memory_directory
from tests.support.requirements import skip_unless_there, unfit_skip
from tests.support.waits import PATIENT

_NUMBERS = itertools.count(1)
_REDIS_DATABASES = 15  # 1 to 15; 0 is left to programs that are started whole

LONG = (
    "benchmarks",
    "deploy",
    "drills",
    "failover",
    "faults",
    "hostile",
    "integration/store/test_cut_calls.py",
    "integration/test_idle.py",
    "integration/tools/test_cut_calls.py",
    "ui/test_shlink_web_component.py",
)
"""The directories and files whose tests take long: `make test-all` runs them, `make test` does not."""

EARLY = (
    "integration/test_proxy.py",
    "integration/tools/test_cli.py",
    "integration/tools/test_migrator.py",
    "integration/tools/test_migrator_status.py",
    "integration/tools/test_roles.py",
)
"""Files with a test of 20 s or more. They start right after the long ones: none is left for the end."""


for variable in [name for name in os.environ if name.startswith("SNAPURL_")]:
    del os.environ[variable]  # the settings of whoever runs the tests must not decide them

# A busy machine takes any time for an example.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# No test speaks TLS over httpx, and each client would read all CAs of the system, which takes 20 ms of CPU time.
vars(httpx._transports.default)["create_ssl_context"] = functools.cache(httpx.create_ssl_context)

if (memory := memory_directory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))  # where `tmp_path` and the servers' data are


# -- which tests run ----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--may-lack", metavar="NAMES",
        help="the programs that this machine may lack, by commas: a skip for want of another one fails",
    )  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    long = {here / name for name in LONG}
    for item in items:
        if long.intersection((item.path, *item.path.parents)):
            item.add_marker(pytest.mark.long)
    early = {here / name for name in EARLY}
    items.sort(key=lambda item: 0 if item.get_closest_marker("long") else 1 if item.path in early else 2)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests: each full collection would look through all of them


def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_unless_there(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        names = item.config.getoption("--may-lack")
        may_lack = None if names is None else frozenset(names.split(","))
        if fault := unfit_skip(str(report.longrepr), may_lack):
            report.outcome, report.longrepr = "failed", fault
    return report


# -- directories --------------------------------------------------------------------------------------------------

_AS_SYSTEM_USER = os.geteuid() == 0 and in_namespace() is None
"""Whether PostgreSQL runs as another user, as for root in most containers: it must reach the servers' data."""


@pytest.fixture(scope="session", autouse=True)
def _reachable_directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    if _AS_SYSTEM_USER:
        base = tmp_path_factory.getbasetemp()
        for directory in (base, *base.parents):
            if directory.stat().st_uid == 0 and not directory.stat().st_mode & 0o001:
                directory.chmod(0o711)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    if _AS_SYSTEM_USER:
        tmp_path.chmod(0o711)
    return tmp_path


# -- servers and databases ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Four PostgreSQL servers (db0 to db3) and a Redis. A test that stops one may leave it so."""
    async with LocalCluster(tmp_path_factory.mktemp("cluster"), durable=False, loopback=True) as running:
        yield running


@pytest.fixture(scope="session")
async def databases(cluster: LocalCluster) -> AsyncIterator[Databases]:
    """Makes databases on the servers of the cluster."""
    made = Databases(cluster)
    yield made
    await made.close()


@pytest.fixture
async def fresh_shards(
    cluster: LocalCluster, databases: Databases, request: pytest.FixtureRequest
) -> AsyncIterator[dict[str, str]]:
    """Name -> DSN of a database on each of the four servers, gone after the test.

    They are empty, unless the test asks for a cluster (`ready`) or a service on one: then they are one already.
    """
    await _revive(cluster)
    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    initialised = {"ready", "make_service"} & set(request.fixturenames)
    await (databases.clone_initialised(name) if initialised else databases.create(name))
    yield {shard: cluster.shard(shard).dsn(name) for shard in cluster.dsns}
    await _revive(cluster)
    await databases.drop(name)


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
    """Settings over `fresh_shards` and `redis_url`, patient, with whatever else a test wants to set."""

    def make(**overrides: object) -> Settings:
        shards = " ".join(f"{name}={dsn}" for name, dsn in fresh_shards.items())
        own = {"shards": shards, "redis_url": redis_url, "home": tmp_path}
        return load_settings(**{**PATIENT, **own, **overrides})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings over `fresh_shards` and `redis_url`."""
    return make_settings()


async def _revive(cluster: LocalCluster) -> None:
    """Starts again what an earlier test has stopped or killed."""
    for server in cluster.servers():
        if server.pid is None:
            await server.start()
