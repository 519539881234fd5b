"""Looks from outside at whether the click consumer of this host works, for its health check."""

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
    """What keeps the click consumer of this host from its work: Redis or every shard silent, or that there is none
    that moves; None if nothing does."""
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
