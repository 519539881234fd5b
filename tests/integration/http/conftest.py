"""One shared service for tests that only send requests, a factory for tests that need their own, and a receiver of
webhooks."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest

from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.webhooks import WebhookStore
from snapurl.tasks import cancel_and_wait
from snapurl.webhooks import sender as sender_module
from snapurl.webhooks.sender import make_sender
from tests.integration.http.service import PUBLIC_URL, Service, running
from tests.support.databases import Databases
from tests.support.receiver import Receiver, receiving
from tests.support.waits import PATIENT

MISS_MAX_AGE_S = 60

ServiceMaker = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
async def shared_settings(
    cluster: LocalCluster, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Settings]:
    """Returns settings for Redis database 0 and databases that live as long as the test session."""
    # Each conftest that has this fixture makes a database of its own.
    database = f"http_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    await databases.clone_initialised(database)
    shards = " ".join(f"{name}={cluster.shard(name).dsn(database)}" for name in cluster.dsns)
    yield load_settings(
        shards=shards, redis_url=cluster.redis.url(0), home=tmp_path_factory.mktemp("home"), **PATIENT
    )
    for server in cluster.servers():
        if server.pid is None:
            await server.start()
    await databases.drop(database)


@pytest.fixture(scope="session")
async def service(
    shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """Yields a service of two workers without limits, with anonymous creation and all APIs."""
    apis = {"SNAPURL_SHLINK_API": "true", "SNAPURL_YOURLS_API": "true"}
    variables = {"SNAPURL_MISS_MAX_AGE_S": str(MISS_MAX_AGE_S), **apis}
    async with running(
        shared_settings, tmp_path_factory.mktemp("workers"), workers=2, **variables
    ) as started:
        yield started


@pytest.fixture
def make_service(settings: Settings, tmp_path: Path) -> ServiceMaker:
    """Returns a factory of services on fresh shards: `async with make_service(workers=2, SNAPURL_X="1")`."""
    return partial(running, settings, tmp_path)


@pytest.fixture
def api(service: Service) -> httpx.AsyncClient:
    """Returns a client of the shared service with its admin key."""
    return service.api


@pytest.fixture
async def receiver(
    service: Service, shared_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Receiver]:
    """A receiver, while messages of the shared service are sent."""
    for name in ("COMPARE_S", "POLL_S"):
        monkeypatch.setattr(sender_module, name, 0.05)
    settings = shared_settings.model_copy(update={"webhook_networks": "127.0.0.0/8", "base_url": PUBLIC_URL})
    shards = await Shards.connect(settings)
    store = WebhookStore(shards, Router(shards, settings.busy_wait_ms))
    sender = make_sender(settings, store, lambda: True, asyncio.get_running_loop().time)
    sending = asyncio.create_task(sender.run())
    async with receiving() as found:
        yield found
    await cancel_and_wait(sending)
    await shards.close()
