"""Failed and abandoned attempts to connect to a shard."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import asyncpg
import pytest

from snapurl.store.cluster.failover import connect_primary
from snapurl.store.cluster.pool import describe
from tests.support.waits import HANG_S, unless_hung

ANSWERS = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "redis": b"-ERR unknown command\r\n",
    "plain": b"N",
    "closed": b"",
}


@pytest.mark.parametrize(
    ("answer", "mode", "reason"),
    [
        ("http", "prefer", "is not a PostgreSQL server"),
        ("http", "require", "is not a PostgreSQL server"),
        ("redis", "require", "is not a PostgreSQL server"),
        ("plain", "require", "does not speak TLS, which its DSN asks for"),
        ("closed", "disable", "closed the connection"),
        (None, "prefer", "refuses connections: nothing listens on its port"),
    ],
)
async def test_the_cause_is_told_of_what_is_no_usable_server(
    answer: str | None, mode: str, reason: str
) -> None:
    """Another program on the port, PostgreSQL without TLS and a closed port have each their own reason."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(ANSWERS[answer or ""])
        await writer.drain()
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        if answer is None:
            server.close()
            await server.wait_closed()
        with pytest.raises((OSError, asyncpg.PostgresError)) as raised:
            await unless_hung(connect_primary(f"postgresql://u:p@{host}:{port}/x?sslmode={mode}", HANG_S))
    assert describe(raised.value) == reason


async def test_unknown_names_and_missing_sockets_are_told_apart(tmp_path: Path) -> None:
    """A name that does not resolve and a directory without a socket have each their own reason."""
    for dsn, reason in (
        ("postgresql://u:secret@db0.invalid/x", "has a host name that cannot be resolved"),
        (f"postgresql://u:secret@/x?host={tmp_path}", "has no socket in the directory of its DSN"),
    ):
        with pytest.raises(OSError) as raised:
            await unless_hung(connect_primary(dsn, HANG_S))
        assert describe(raised.value) == reason


async def test_an_attempt_that_is_given_up_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A connection attempt that is cancelled or times out during TLS negotiation logs no asyncio message."""
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        dsn = f"postgresql://u:p@{host}:{port}/x"
        for steps in range(12):
            attempt = asyncio.create_task(connect_primary(dsn, 5.0))
            for _ in range(steps):
                await asyncio.sleep(0)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        with pytest.raises(TimeoutError):
            await connect_primary(dsn, 0.05)
        assert asked.is_set()
        await asyncio.sleep(0.05)
        gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
