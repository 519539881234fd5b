"""Connects to a shard with several hosts, of which one at a time is the primary.

A dead or frozen host must not use up the time in which another would answer. Each host gets a head start of
HEAD_START_S before the next is tried as well, and the first one that is the primary wins. The host that won last is
tried first. Only the servers say which one is the primary (`target_session_attrs`, read-write unless the DSN sets
it).

A standby is refused even if it is the only host. Once promoted, it has to be attested (`ring/restarts.py`), and a
connection from before the promotion would evade that check.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from snapurl.host_names import resolve_host
from snapurl.store.cluster.connection import Connection
from snapurl.store.cluster.dsn import PORT

HEAD_START_S = 0.2
_TLS_REQUEST = struct.pack("!ii", 8, 80877103)

Host = tuple[str, int]


class NotPrimary(asyncpg.InterfaceError):
    """The server is a standby, which serves nothing until it is promoted."""

    def __init__(self) -> None:
        super().__init__("the server is a standby")


class NotPostgreSQL(ConnectionError):
    """What listens at the address speaks another protocol."""


class _Abandoned(logging.Filter):
    """Drops asyncio's log line about an abandoned TLS handshake: asyncpg leaves a future there whose exception
    nobody retrieves."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (
            isinstance(error, ConnectionError) and error.args == ("unexpected connection_lost() call",)
        )


logging.getLogger("asyncio").addFilter(_Abandoned())

_last_primary: dict[tuple[Host, ...], Host] = {}


def hosts_of(dsn: str) -> tuple[Host, ...]:
    """Returns host and port of every server in a DSN; () if its options name them. Raises ValueError."""
    listed = urlsplit(dsn).netloc.rpartition("@")[2]
    return tuple(_host(item) for item in listed.split(",")) if listed else ()


def _host(item: str) -> Host:
    host, colon, port = item.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = item, ""
    return unquote(host.strip("[]")), int(port or PORT)


async def connect_primary(dsn: str, timeout_s: float, **options: Any) -> Connection:
    """Connects to the server of `dsn`; with several hosts, to the one that is the primary.

    `options` are those of asyncpg.connect. Raises what it raises, TimeoutError after `timeout_s`, and NotPrimary.
    """
    hosts = hosts_of(dsn)
    if len(hosts) < 2:
        async with asyncio.timeout(timeout_s):
            return _refuse_standby(await _connect(dsn, hosts[0] if hosts else None, timeout_s, options))
    if "target_session_attrs" not in parse_qs(urlsplit(dsn).query):
        options["target_session_attrs"] = "read-write"
    first = _last_primary.get(hosts, hosts[0])
    order = sorted(hosts, key=lambda host: host != first)
    async with asyncio.timeout(timeout_s):
        host, connection = await _race(dsn, order, timeout_s, options)
    _last_primary[hosts] = host
    return _refuse_standby(connection)


def prefer_next(dsn: str) -> None:
    """Tries another host first from now on: the one that won last was replaced."""
    hosts = hosts_of(dsn)
    if len(hosts) > 1:
        last = _last_primary.get(hosts, hosts[0])
        _last_primary[hosts] = hosts[(hosts.index(last) + 1) % len(hosts)]


def _refuse_standby(connection: Connection) -> Connection:
    if getattr(connection.get_settings(), "in_hot_standby", "off") == "on":
        connection.terminate()
        raise NotPrimary
    return connection


async def _connect(dsn: str, host: Host | None, timeout_s: float, options: Mapping[str, Any]) -> Connection:
    if host is not None:
        await resolve_host(host[0], timeout_s)
    try:
        return await asyncpg.connect(dsn, timeout=timeout_s, connection_class=Connection, **options)
    except ConnectionError as error:
        if host is not None and "rejected SSL upgrade" in str(error) and not await _refuses_tls(host):
            raise NotPostgreSQL("it speaks another protocol") from error
        raise


async def _refuses_tls(host: Host) -> bool:
    """Whether a server that did not agree to TLS refused it in the way of PostgreSQL. asyncpg does not tell."""
    reader, writer = await asyncio.open_connection(*host)
    try:
        writer.write(_TLS_REQUEST)
        return await reader.read(1) == b"N"
    finally:
        writer.close()


async def _race(
    dsn: str, order: list[Host], timeout_s: float, options: Mapping[str, Any]
) -> tuple[Host, Connection]:
    running: dict[asyncio.Task[Connection], Host] = {}
    errors: list[BaseException] = []
    left = list(order)
    try:
        while running or left:
            if left:
                host = left.pop(0)
                attempt = _connect(dsn, host, timeout_s, {**options, "host": host[0], "port": host[1]})
                running[asyncio.create_task(attempt)] = host
            wait_s = HEAD_START_S if left else None
            done, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                host = running.pop(task)
                if (error := task.exception()) is None:
                    return host, task.result()
                errors.append(error)
        raise min(errors, key=_severity)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_discard)


def _severity(error: BaseException) -> int:
    """Orders failures for the report: those that an operator must fix come before those that may be temporary."""
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return 1
    is_temporary = isinstance(error, (OSError, asyncpg.CannotConnectNowError)) and not isinstance(
        error, ssl.SSLError
    )
    return 2 if is_temporary else 0


def _discard(task: asyncio.Task[Connection]) -> None:
    """Closes a connection that lost the race, and retrieves the exception of a failed attempt."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
