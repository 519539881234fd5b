"""Abandoned attempts to connect to a shard."""

from __future__ import annotations

import asyncio
import gc

import pytest

from snapurl.store.cluster.failover import connect_primary


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
