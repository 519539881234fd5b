"""A worker starts or reports why it cannot, and shuts down without losing a request."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapurl.config import Settings
from snapurl.run.serve import LEAVE_SIGNAL
from snapurl.run.worker import CLOSE_S_MAX, DRAIN_S_MAX, run
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.tasks import cancel_and_wait
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import environ_of, new_worker, running
from tests.support.waits import BUSY_S, HANG_S, until


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"SNAPURL_SHARDS": ""}, "SNAPURL_SHARDS is missing"),
        ({"SNAPURL_SHARDS": "db0=nonsense"}, "SNAPURL_SHARDS"),
        ({"SNAPURL_SHARDS": "db0=postgresql://u:secret@127.0.0.1:1/x"}, "no shard answers"),
        ({"SNAPURL_PORT": "0"}, "SNAPURL_PORT"),
        ({}, "snapurl migrate"),
    ],
)
async def test_a_worker_that_cannot_start_says_one_line_and_exits_with_2(
    settings: Settings, tmp_path: Path, variables: dict[str, str], line: str
) -> None:
    """A worker that cannot start prints one line without stack trace or password, and exits with 2."""
    worker = new_worker(environ_of(settings, SNAPURL_LOG_LEVEL="error", **variables), tmp_path)
    process = await worker.spawn()
    assert await asyncio.wait_for(process.wait(), HANG_S) == 2
    said = worker.log.read_text()
    assert said.startswith("snapurl: ") and line in said
    assert said.count("\n") == 1 and "secret" not in said
    worker.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_ends_cleanly_in_bounded_time(make_service: ServiceMaker, signum: int) -> None:
    """A worker shuts down in time with exit code 0 and no stderr, also with idle and silent connections."""
    async with make_service(SNAPURL_LOG_LEVEL="warning") as service:
        await service.shorten()
        worker = service.workers[0]
        _, silent = await asyncio.open_connection("127.0.0.1", worker.port)
        began = time.monotonic()
        assert await worker.stop(signum) == 0
        assert time.monotonic() - began < DRAIN_S_MAX + CLOSE_S_MAX + BUSY_S
        assert worker.log.read_text() == ""
        silent.close()


async def test_garbage_collections_pass_over_what_a_worker_has_loaded(settings: Settings) -> None:
    """A full garbage collection, during which requests wait, examines few of the objects of a worker's start."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    gc.unfreeze()  # what the tests themselves have frozen
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(run(settings, listener))
        try:
            await until(gc.get_freeze_count, lambda: serving)
            assert len(gc.get_objects()) < gc.get_freeze_count() / 10
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
        finally:
            await cancel_and_wait(serving)
            gc.freeze()
            for signum in (signal.SIGTERM, signal.SIGINT, LEAVE_SIGNAL):
                asyncio.get_running_loop().remove_signal_handler(signum)


async def test_requests_in_hand_are_answered_while_a_worker_ends(make_service: ServiceMaker) -> None:
    """A request that began before the signal gets its response, then its connection is closed."""
    async with make_service() as service:
        worker = service.workers[0]
        body = b'{"url": "https://example.org/"}'
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", worker.port)
        idle_writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.wait_for(idle.readuntil(b"\r\n\r\n"), HANG_S)
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(
            b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n"
            + f"content-length: {len(body)}\r\nx-api-key: {service.admin_key}\r\n\r\n".encode()
        )
        assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.wait_for(idle.read(), HANG_S)  # a worker that ends closes what is idle
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer.startswith(b"HTTP/1.1 201 ") and b"connection: close" in answer
        assert await stopping == 0
        writer.close()
        idle_writer.close()


async def test_pages_that_watch_do_not_hold_up_a_worker_that_ends(make_service: ServiceMaker) -> None:
    """A stream of events gets its last byte when the worker ends, whose log stays empty."""
    async with make_service(SNAPURL_LOG_LEVEL="warning") as service:
        worker = service.workers[0]
        login = await service.client(Origin=worker.url).post("/ui/login", data={"key": service.admin_key})
        head = f"GET /ui/cluster/events HTTP/1.1\r\nhost: x\r\ncookie: {login.headers['set-cookie']}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port, limit=1_000_000)
        writer.write(head.encode())
        assert b"text/event-stream" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
        await asyncio.wait_for(reader.readuntil(b"data: "), HANG_S)
        stopping = asyncio.create_task(worker.stop())
        assert (await asyncio.wait_for(reader.read(), HANG_S)).endswith(b"\r\n0\r\n\r\n")
        assert await stopping == 0
        assert worker.log.read_text() == ""
        writer.close()


async def test_a_restarted_worker_takes_the_connections_that_wait(make_service: ServiceMaker) -> None:
    """A restarted worker accepts the waiting connections, because the listening socket outlives it."""
    async with make_service() as service:
        link = await service.shorten()
        worker = service.workers[0]
        await worker.stop(signal.SIGKILL)
        waiting = asyncio.create_task(service.client().get(f"/{link['code']}"))
        await asyncio.sleep(0.1)
        await worker.start()
        assert (await waiting).status_code == 302


async def test_without_redis_a_worker_starts_degraded_and_says_so(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Without Redis a worker creates and redirects links; the log and readiness name what is missing."""
    settings = make_settings(redis_url="redis://127.0.0.1:1/0")
    async with running(settings, tmp_path) as service:
        link = await service.shorten()
        assert (await service.api.get(f"/{link['code']}")).status_code == 302
        ready = await service.details()
        assert (ready["status"], ready["redis"]["ok"]) == ("degraded", False)
        assert "starting degraded: Redis does not answer" in service.workers[0].log.read_text()


async def test_a_worker_that_is_about_to_stop_answers_all_but_health_checks(
    make_service: ServiceMaker,
) -> None:
    """When its supervisor is about to stop it, a worker fails health checks and answers everything else."""
    async with make_service() as service:
        link = await service.shorten()
        process = service.workers[0].process
        assert process is not None
        process.send_signal(LEAVE_SIGNAL)

        async def fails_its_checks() -> bool:
            return (await service.api.get("/health/live")).status_code == 503

        await until(fails_its_checks)
        assert (await service.api.get("/health/ready")).status_code == 503
        assert (await service.client().get(f"/{link['code']}")).status_code == 302
        await service.shorten()
