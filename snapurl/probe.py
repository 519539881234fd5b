"""Looks from outside at whether a part of the service can work, for health checks and for `up`."""

from __future__ import annotations

import asyncio

from redis.exceptions import RedisError

from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.redis import redis_client, redis_fault
from snapurl.store.shards import read_topology

ANSWER_S_MAX = 3.0
"""Longer than a look at a silent shard takes."""


async def service_fault(settings: Settings) -> str | None:
    """Why the HTTP service of these settings is not ready; None if it is."""
    status = await http_status(settings, "/health/ready")
    return None if status == 200 else f"/health/ready: {status or 'no answer'}"


async def consumer_fault(settings: Settings) -> str | None:
    """What keeps a click consumer from its work: Redis or every shard silent; None if nothing does."""
    try:
        async with redis_client(settings, ANSWER_S_MAX) as client:
            await client.ping()
        await read_topology(settings)
    except (RedisError, OSError) as error:
        return f"Redis {redis_fault(error)}"
    except SnapURLError as error:
        return error.detail
    return None


async def http_status(settings: Settings, path: str) -> int:
    """The HTTP status of a GET on the service of these settings; 0 if it does not answer in time."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection(host, settings.port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
