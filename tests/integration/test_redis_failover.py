"""A Redis whose name points to another server after a failover, as with a managed Redis."""

from __future__ import annotations

import pytest
from redis.exceptions import ReadOnlyError

from snapurl.config import load_settings
from snapurl.redis_client import redis_client
from tests.support.waits import PATIENT


async def test_the_connection_to_what_is_a_replica_now_is_left(redis_url: str) -> None:
    """After a replica has refused a write, the next write uses a new connection, which finds the new primary."""
    settings = load_settings(redis_url=redis_url, **PATIENT)
    async with redis_client(settings) as worker, redis_client(settings) as operator:
        before = await worker.client_id()
        await operator.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(ReadOnlyError):
                await worker.set("a link", "kept")
            assert await worker.client_id() != before
        finally:
            await operator.replicaof("NO", "ONE")
        await worker.set("a link", "kept")
