"""Workers as they run in production, as separate processes; here each has its own port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from snapurl.config import Settings
from snapurl.keys import create_key
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.support.programs import Process, start
from tests.support.waits import HANG_S, PATIENT, until

PUBLIC_URL = "https://s.example.org"


@dataclass
class Worker:
    """One `snapurl.worker` process. This object holds its listening sockets, as a supervisor does."""

    listener: socket.socket
    metrics_listener: socket.socket
    environ: dict[str, str]
    log: Path
    process: Process | None = None

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts the process and waits until it answers."""
        await self.spawn()
        await self.answering()

    async def spawn(self) -> Process:
        with self.log.open("ab") as log:
            fds = self.listener.fileno(), self.metrics_listener.fileno()
            words = ("--fd", str(fds[0]), "--metrics-fd", str(fds[1]))
            self.process = await start(
                "snapurl.run.worker", *words, env=self.environ, stdout=log, stderr=log, pass_fds=fds
            )
        return self.process

    async def answering(self) -> None:
        assert self.process is not None
        async with httpx.AsyncClient() as client:

            async def answers() -> bool:
                assert self.process is not None
                assert self.process.returncode is None, self.log.read_text()
                with contextlib.suppress(httpx.HTTPError):
                    return bool(await client.get(f"{self.url}/health/live", timeout=HANG_S))
                return False

            await until(answers, self.log.read_text)

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signum)
        return await self.process.wait()

    def close(self) -> None:
        """Closes the listening sockets."""
        self.listener.close()
        self.metrics_listener.close()

    async def say(self, *parts: bytes, pause_s: float = 0.0) -> bytes:
        """Sends raw bytes over a new connection and returns all bytes received until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await asyncio.wait_for(reader.read(), HANG_S)
        finally:
            writer.close()


@dataclass
class Service:
    """Workers on one set of shards, with an admin key and a client that uses it."""

    settings: Settings
    workers: list[Worker]
    admin_key: str
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def api(self) -> httpx.AsyncClient:
        """Returns a client of the first worker with the admin key."""
        return self.clients[0]

    def client(self, key: str | None = None, worker: int = 0, **headers: str) -> httpx.AsyncClient:
        """Returns a client of one worker, with that key or none. It is closed with the service at the latest."""
        own = {**({"X-Api-Key": key} if key else {}), **headers}
        client = httpx.AsyncClient(base_url=self.workers[worker].url, headers=own, timeout=HANG_S)
        self.clients.append(client)
        return client

    def inside(self, worker: int = 0) -> httpx.AsyncClient:
        """Returns a client of the metrics port of one worker."""
        port = self.workers[worker].metrics_listener.getsockname()[1]
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S)
        self.clients.append(client)
        return client

    async def details(self) -> dict[str, Any]:
        """Returns the readiness of the first worker with names and causes."""
        found: dict[str, Any] = (await self.inside().get("/health/ready")).json()
        return found

    async def key(self, *rights: str, limit: str = "none") -> str:
        """Creates and returns a key with those rights."""
        return await create_key(self.settings, "test", rights, limit)

    async def expire(self, code: str) -> dict[str, Any]:
        """Lets a link expire, and returns it. No expiry may be in the past, so each try lies further ahead."""
        for ahead_s in (0.2 * 2**tries for tries in range(10)):
            at = datetime.now(UTC) + timedelta(seconds=ahead_s)
            answer = await self.api.patch(f"/api/v1/links/{code}", json={"expires_at": at.isoformat()})
            if answer.status_code == 200:
                await asyncio.sleep((at - datetime.now(UTC)).total_seconds() + 0.01)
                link: dict[str, Any] = answer.json()
                return link
            assert answer.status_code == 422, answer.text
        raise AssertionError(f"no expiry was accepted: {answer.text}")

    async def shorten(self, url: str = "https://example.org/", **fields: Any) -> dict[str, Any]:
        """Creates a link with the admin key."""
        answer = await self.api.post("/api/v1/links", json={"url": url, **fields})
        assert answer.status_code == 201, answer.text
        link: dict[str, Any] = answer.json()
        return link


def environ_of(settings: Settings, **variables: str) -> dict[str, str]:
    """Returns a worker's environment with the shards, the Redis and the time-outs of `settings`."""
    shards = " ".join(f"{item.name}={item.dsn}" for item in settings.shard_dsns)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")},
        "SNAPURL_SHARDS": shards,
        "SNAPURL_REDIS_URL": settings.redis_url.get_secret_value(),
        **{f"SNAPURL_{name.upper()}": str(getattr(settings, name)) for name in PATIENT},
        "SNAPURL_BASE_URL": PUBLIC_URL,
        "SNAPURL_ANONYMOUS_CREATION": "true",
        "SNAPURL_LIMIT_MISSING": "none",
        "SNAPURL_LIMIT_CREATE": "none",
        "SNAPURL_LIMIT_UNAUTHORIZED": "none",
        **variables,
    }


def new_worker(environ: dict[str, str], directory: Path, port: int = 0) -> Worker:
    """Returns a worker that has a listening socket and is not started."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    metrics_listener = socket.create_server(("127.0.0.1", 0))
    return Worker(listener, metrics_listener, environ, directory / f"worker-{listener.fileno()}.log")


@asynccontextmanager
async def running(
    settings: Settings, directory: Path, workers: int = 1, **variables: str
) -> AsyncIterator[Service]:
    """Runs a service on empty or initialised shards, and stops it at the end."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    environ = environ_of(settings, **variables)
    service = Service(settings, [new_worker(environ, directory) for _ in range(workers)], "")
    service.admin_key = await service.key("admin")
    try:
        await asyncio.gather(*(worker.start() for worker in service.workers))
        for number in range(workers):
            service.client(service.admin_key, number)
        yield service
    finally:
        for client in service.clients:
            await client.aclose()
        for worker in service.workers:
            if worker.process is not None:
                await worker.stop()
            worker.close()
