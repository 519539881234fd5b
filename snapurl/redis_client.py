"""How all programs connect to Redis: a bounded pool, bounded waits, no retries.

The URL turns on TLS (`rediss://…?ssl_ca_certs=FILE`), with the parameters of redis-py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
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
from snapurl.host_names import resolve_host
from snapurl.tls import tls_fault

CONNECTIONS_MAX = 16  # per process and client; the wait for one is bounded like that for a reply
FILE_PARAMETERS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class _Named(Connection):
    """A connection that is opened only when the name of its host was found."""

    async def _connect(self) -> None:
        await resolve_host(self.host, self.socket_connect_timeout or 0.0)
        await super()._connect()  # type: ignore[no-untyped-call]


class _NamedTls(_Named, SSLConnection):
    """The same with TLS."""


_NAMED: dict[Any, Any] = {Connection: _Named, SSLConnection: _NamedTls}


def redis_pool(settings: Settings, timeout_s: float | None = None) -> BlockingConnectionPool:
    """Makes a pool of connections to the configured Redis, which connects on first use. Raises ConfigError.

    `timeout_s` overrides SNAPURL_REDIS_TIMEOUT_MS.
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
            retry_on_error=[
                ReadOnlyError
            ],  # closes the connection to a former primary; with 0 retries nothing is retried
            **({"password": password} if password else {}),  # a password in the URL takes precedence
        )
        pool.connection_class = _NAMED.get(pool.connection_class, pool.connection_class)
        pool.connection_class(**pool.connection_kwargs)  # reports invalid parameters now, not on first use
    except (ValueError, TypeError):  # whose texts quote the URL
        raise ConfigError(
            "SNAPURL_REDIS_URL cannot be read: write redis://:password@host:6379/0, or rediss:// for TLS; "
            "percent-encode special characters of the password, or set it in SNAPURL_REDIS_PASSWORD"
        ) from None
    _check_files(pool.connection_kwargs)
    return pool


def _check_files(parameters: dict[str, Any]) -> None:
    for name in FILE_PARAMETERS:
        if name in parameters and not Path(parameters[name]).is_file():
            raise ConfigError(f"SNAPURL_REDIS_URL: the file of {name} does not exist")


def redis_client(settings: Settings, timeout_s: float | None = None) -> Redis:
    """Makes a client with its own pool; `aclose` closes both."""
    return Redis.from_pool(redis_pool(settings, timeout_s))


def is_full(error: BaseException) -> bool:
    """Whether Redis refuses writes because it has reached its maxmemory."""
    if isinstance(error, OutOfMemoryError):
        return True
    return isinstance(error, ResponseError) and "-OOM " in str(error)  # raised by a script in Redis 6


def redis_fault(error: BaseException) -> str:
    """Returns why Redis failed, in words without an address or a secret."""
    if is_full(error):
        return "is full: it has come to its maxmemory"
    if isinstance(error, AuthenticationError):
        return "refuses the password of its URL"
    if isinstance(error, NoPermissionError):
        return "does not give its user the rights that it needs"
    return tls_fault(error) or "does not answer"
