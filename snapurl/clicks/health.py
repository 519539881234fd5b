"""The health check of the click consumer, asked from another process on the same host."""

from __future__ import annotations

import socket

from redis.exceptions import RedisError

from snapurl.clicks.stream import alive_key
from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.redis_client import redis_client, redis_fault
from snapurl.store.cluster.shards import read_topology

ANSWER_S_MAX = 3.0


async def consumer_fault(settings: Settings) -> str | None:
    """Returns why the click consumer of this host cannot work, or None: Redis or every shard is down, or the
    consumer has not renewed its heartbeat."""
    try:
        async with redis_client(settings, ANSWER_S_MAX) as client:
            await client.ping()
            topology = await read_topology(settings)
            if not await client.exists(alive_key(topology.cluster_id, socket.gethostname())):
                return "no click consumer has been at work on this host for some seconds"
    except (RedisError, OSError) as error:
        return f"Redis {redis_fault(error)}"
    except SnapURLError as error:
        return error.detail
    return None
