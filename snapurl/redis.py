"""The one way in which this program connects to Redis: bounded in connections, in waits, and without retries."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from snapurl.config import Settings

CONNECTIONS_MAX = 16  # per process and client; who waits longer for one than for an answer gets an error


def redis_pool(settings: Settings) -> BlockingConnectionPool:
    """Connections to the configured Redis; none is made before the first call."""
    timeout_s = settings.redis_timeout_ms / 1000
    return BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def redis_client(settings: Settings) -> Redis:
    """A client of its own connections; `aclose` ends them."""
    return Redis.from_pool(redis_pool(settings))
