"""Connecting to a shard that has several hosts, of which one is its primary at a time.

A dead or frozen host must not use up the time in which another would have answered: each host gets a head
start of HEAD_START_S before the next is asked as well, and the first that is the primary wins. The one that
won last is asked first. Which host is the primary only the servers say (`target_session_attrs`, read-write
unless the DSN has another).

A standby is refused also where it is the only host: once promoted, it may have a past (`ring/restarts.py`), and
a connection from before would be one to a server that was never asked about it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from snapurl.store.cluster.dsn import PORT

HEAD_START_S = 0.2

Host = tuple[str, int]


class NotPrimary(asyncpg.InterfaceError):
    """The server is a standby: there is nobody to speak to until it is promoted."""

    def __init__(self) -> None:
        super().__init__("the server is a standby")


class _Abandoned(logging.Filter):
    """Drops what asyncio says of an attempt to connect that was given up while asyncpg asked for TLS: asyncpg has
    a future there at which nobody looks any more, and nothing is wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (
            isinstance(error, ConnectionError) and error.args == ("unexpected connection_lost() call",)
        )


logging.getLogger("asyncio").addFilter(_Abandoned())

_won_last: dict[tuple[Host, ...], Host] = {}


def hosts_of(dsn: str) -> tuple[Host, ...]:
    """Host and port of every server that a DSN names; () if it leaves that to its options. Raises ValueError."""
    listed = urlsplit(dsn).netloc.rpartition("@")[2]
    return tuple(_host(item) for item in listed.split(",")) if listed else ()


def _host(item: str) -> Host:
    host, colon, port = item.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = item, ""
    return unquote(host.strip("[]")), int(port or PORT)


async def connect_primary(dsn: str, timeout_s: float, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to the server of `dsn`; of several hosts, to the one that is the primary.

    `options` are those of asyncpg.connect. Raises as that does, TimeoutError after `timeout_s`, and NotPrimary.
    """
    hosts = hosts_of(dsn)
    if len(hosts) < 2:
        return _of_primary(await asyncpg.connect(dsn, timeout=timeout_s, **options))
    if "target_session_attrs" not in parse_qs(urlsplit(dsn).query):
        options["target_session_attrs"] = "read-write"
    favourite = _won_last.get(hosts, hosts[0])
    order = sorted(hosts, key=lambda host: host != favourite)
    async with asyncio.timeout(timeout_s):
        host, connection = await _race(dsn, order, timeout_s, options)
    _won_last[hosts] = host
    return _of_primary(connection)


def prefer_next(dsn: str) -> None:
    """The server that won last is one that was replaced: another host is asked first from now on."""
    hosts = hosts_of(dsn)
    if len(hosts) > 1:
        last = _won_last.get(hosts, hosts[0])
        _won_last[hosts] = hosts[(hosts.index(last) + 1) % len(hosts)]


def _of_primary(connection: asyncpg.Connection[asyncpg.Record]) -> asyncpg.Connection[asyncpg.Record]:
    if getattr(connection.get_settings(), "in_hot_standby", "off") == "on":
        connection.terminate()
        raise NotPrimary
    return connection


async def _race(
    dsn: str, order: list[Host], timeout_s: float, options: Mapping[str, Any]
) -> tuple[Host, asyncpg.Connection[asyncpg.Record]]:
    running: dict[asyncio.Task[asyncpg.Connection[asyncpg.Record]], Host] = {}
    errors: list[BaseException] = []
    left = list(order)
    try:
        while running or left:
            if left:
                host = left.pop(0)
                begun = asyncpg.connect(dsn, host=host[0], port=host[1], timeout=timeout_s, **options)
                running[asyncio.ensure_future(begun)] = host
            wait_s = HEAD_START_S if left else None
            done, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                host = running.pop(task)
                if (error := task.exception()) is None:
                    return host, task.result()
                errors.append(error)
        raise min(errors, key=_weight)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_quietly)


def _weight(error: BaseException) -> int:
    """Of several failures, what somebody has to mend is worth telling before what may pass by itself."""
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return 1
    passing = isinstance(error, (OSError, asyncpg.CannotConnectNowError)) and not isinstance(
        error, ssl.SSLError
    )
    return 2 if passing else 0


def _close_quietly(task: asyncio.Task[asyncpg.Connection[asyncpg.Record]]) -> None:
    """One that came too late, or failed: nobody waits for it."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
