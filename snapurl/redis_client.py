"""The one way in which this program connects to Redis: bounded in connections, in waits, and without retries.

TLS is asked for in the URL (`rediss://…?ssl_ca_certs=FILE`), in the words of redis-py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.tls import tls_fault

CONNECTIONS_MAX = 16  # per process and client; who waits longer for one than for an answer gets an error
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def redis_pool(settings: Settings, timeout_s: float | None = None) -> BlockingConnectionPool:
    """Connections to the configured Redis; none is made before the first call. Raises ConfigError.

    `timeout_s` stands for SNAPURL_REDIS_TIMEOUT_MS.
    """
    timeout_s = settings.redis_timeout_ms / 1000 if timeout_s is None else timeout_s
    password = settings.redis_password.get_secret_value()
    try:
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=CONNECTIONS_MAX,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[ReadOnlyError],  # not to retry it, but to leave what has become a replica
            **({"password": password} if password else {}),  # one in the URL wins
        )
        pool.connection_class(
            **pool.connection_kwargs
        )  # it would be made at the first call, and fail only then
    except (ValueError, TypeError):  # their texts quote the URL
        raise ConfigError(
            "SNAPURL_REDIS_URL cannot be read: write redis://:password@host:6379/0, or rediss:// for TLS; what is "
            "not a letter or digit in the password as %XX, or the password in SNAPURL_REDIS_PASSWORD"
        ) from None
    _check_files(pool.connection_kwargs)
    return pool


def _check_files(words: dict[str, Any]) -> None:
    for word in FILES:
        if word in words and not Path(words[word]).is_file():
            raise ConfigError(f"SNAPURL_REDIS_URL: there is no such file as {word} names")


def redis_client(settings: Settings, timeout_s: float | None = None) -> Redis:
    """A client of its own connections; `aclose` ends them."""
    return Redis.from_pool(redis_pool(settings, timeout_s))


def is_full(error: BaseException) -> bool:
    """Whether Redis refuses to take more, since it has come to its maxmemory."""
    if isinstance(error, OutOfMemoryError):
        return True
    return isinstance(error, ResponseError) and "-OOM " in str(error)  # Redis 6, of a script


def redis_fault(error: BaseException) -> str:
    """Why Redis failed, in words that hold no address and no secret."""
    if is_full(error):
        return "is full: it has come to its maxmemory"
    if isinstance(error, AuthenticationError):
        return "refuses the password of its URL"
    if isinstance(error, NoPermissionError):
        return "does not give its user the rights that it needs"
    return tls_fault(error) or "does not answer"
