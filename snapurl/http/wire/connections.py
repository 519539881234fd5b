"""Bounds on connections: how many a worker has, how long a request may take to arrive, how much memory bodies use.

Theory. Sanic restarts its time-outs with each byte that arrives, so a client that sends a byte every few seconds
could keep its connection, and the memory of its request, for ever (slowloris). Here the time of a head counts from
its first byte, and each byte of a body extends the time only by what it takes at BODY_BYTES_PER_S_MIN. Sanic's own
time-outs then end both.

Connections are counted per worker and, unless the peer is a trusted proxy, per client and per site
(`snapurl/addresses.py`). When there are too many, an old idle connection is closed in favour of the new one. If
there is none, the new one gets 503 with Retry-After. So clients that only hold connections cannot lock out those
that send requests.

Requests begin within their client's share of the event loop (`loop_share.py`). What no limit counts is answered at
its client's pace (`pace.py`).

Handlers read bodies into memory, within one budget per worker. A request that does not fit is refused with
Retry-After. Sanic discards the rest of a refused body as it arrives.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
from typing import Any

from sanic.http import Stage
from sanic.server import HttpProtocol

from snapurl.addresses import Clients, client_at, site_of
from snapurl.http.wire.chunks import StrictHttp
from snapurl.http.wire.heads import client_of_head
from snapurl.http.wire.loop_share import LoopShare
from snapurl.http.wire.pace import AnswerPace
from snapurl.telemetry.metrics import CONNECTIONS, CONNECTIONS_REFUSED, PACED

CONNECTIONS_MAX = 10_000  # per worker, if it may have that many open files
OPEN_FILES_RESERVED = 500  # for PostgreSQL, Redis, logs
OPEN_FILES_MAX = 65_536
CLIENT_DIVISOR = 4  # one client may have a quarter of the connections
SITE_DIVISOR = 2  # all clients of an IPv6 /48 together may have half
IDLE_SCAN_MAX = 32  # connections examined to find an idle one
BODY_BYTES_PER_S_MIN = 16_384
BODIES_BYTES_MAX = 33_554_432  # in memory at a time, per worker
BODIES_MIN = 2  # bodies of the maximum size fit in the budget

BUSY_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard limit, OPEN_FILES_MAX at most; returns the new soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else soft


class ConnectionBudget:
    """Counts the connections of one worker: in total, per client, and per site of an IPv6 client."""

    def __init__(
        self, connections_max: int, connections_per_client_max: int, connections_per_site_max: int
    ) -> None:
        self._connections_max = connections_max
        self._connections_per_client_max = connections_per_client_max
        self._connections_per_site_max = connections_per_site_max
        self._connections: dict[BoundedProtocol, None] = {}  # roughly the oldest first
        self._counts: dict[str, int] = {}  # by client and by site

    @classmethod
    def of(cls, open_files: int) -> ConnectionBudget:
        """Makes the budget of a process with that limit of open files."""
        connections_max = max(1, min(CONNECTIONS_MAX, open_files - OPEN_FILES_RESERVED))
        return cls(
            connections_max,
            max(1, connections_max // CLIENT_DIVISOR),
            max(1, connections_max // SITE_DIVISOR),
        )

    def add(self, connection: BoundedProtocol, client: str) -> bool:
        """Counts a new connection; returns whether it is allowed. May close an idle connection to allow it.

        `client` is empty for a trusted proxy, whose connections are bounded only in total.
        """
        bounds = self._bounds(client)
        if any(self._counts.get(name, 0) >= most for name, most in bounds):
            CONNECTIONS_REFUSED.labels("address").inc()
            return False
        if len(self._connections) >= self._connections_max and not self._close_idle():
            CONNECTIONS_REFUSED.labels("all").inc()
            return False
        self._connections[connection] = None
        for name, _ in bounds:
            self._counts[name] = self._counts.get(name, 0) + 1
        CONNECTIONS.inc()
        return True

    def remove(self, connection: BoundedProtocol, client: str) -> None:
        """No longer counts a connection; does nothing if it is not counted."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        for name, _ in self._bounds(client):
            left = self._counts[name] - 1
            if left:
                self._counts[name] = left
            else:
                del self._counts[name]
        CONNECTIONS.dec()

    def _bounds(self, client: str) -> list[tuple[str, int]]:
        """Returns against what the connections of a client count, each with its bound."""
        if not client:
            return []
        bounds = [(client, self._connections_per_client_max)]
        site = site_of(client)
        return bounds if site is None else [*bounds, (site, self._connections_per_site_max)]

    def _close_idle(self) -> bool:
        for connection in list(itertools.islice(self._connections, IDLE_SCAN_MAX)):
            if connection.close_if_unused():
                self.remove(connection, connection.client)  # its connection_lost is called only later
                return True
            self._connections[connection] = self._connections.pop(connection)  # in use: to the end
        return False


class BodyBudget:
    """Bounds the bytes of request bodies that a worker holds in memory."""

    def __init__(self, body_bytes_max: int) -> None:
        self._left = max(BODIES_BYTES_MAX, BODIES_MIN * body_bytes_max)

    def reserve(self, count: int) -> bool:
        """Whether `count` bytes fit, and are now reserved; they must be released."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def release(self, count: int) -> None:
        self._left += count


class BoundedProtocol(HttpProtocol):
    """Sanic's protocol within the bounds of this module; `app.ctx.connection_budget` is its budget.

    `client` is the client that the connection counts against, empty if the peer is a trusted proxy.
    `app.ctx.loop_share` says when a request may begin, `app.ctx.pace` how long an uncounted answer waits.
    """

    HTTP_CLASS = StrictHttp
    __slots__ = ("_clients", "_connection_budget", "_is_refused", "_loop_share", "_pace", "_peer", "client")

    def __init__(self, *, app: Any, **others: Any) -> None:
        super().__init__(app=app, **others)
        self._connection_budget: ConnectionBudget = app.ctx.connection_budget
        self._clients: Clients = app.ctx.clients
        self._loop_share: LoopShare = app.ctx.loop_share
        self._pace: AnswerPace = app.ctx.pace
        self._peer = ""
        self.client = ""
        self._is_refused = False

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self.client = "" if self._clients.is_proxy(self._peer) else client_at(self._peer)
        if self._connection_budget.add(self, self.client):
            super().connection_made(transport)  # type: ignore[no-untyped-call]
            return
        self._is_refused = True
        self.transport = transport
        transport.write(BUSY_RESPONSE)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._is_refused:
            return
        self._connection_budget.remove(self, self.client)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Passes data to Sanic, but does not let it restart the time-out of a request that is arriving."""
        if self._is_refused:
            return
        before, http = self._time, self.http
        is_arriving = http is not None and (http.stage is not Stage.IDLE or http.request is not None)
        super().data_received(data)
        if is_arriving:
            earned_s = 0.0 if http.stage is Stage.REQUEST else len(data) / BODY_BYTES_PER_S_MIN
            self._time = min(self._time, before + earned_s)

    async def begin(self, head: bytes | bytearray) -> None:
        """Waits until the request with this head may begin on Sanic's path."""
        await self._loop_share.begin(self.client_of(head))

    async def keep_pace(self, head: bytes | bytearray, answers: float = 1.0) -> None:
        """Waits as the pace of the client of the request with this head demands, unless it has disconnected."""
        if self.transport is None or self.transport.is_closing():
            return
        if wait_s := self._pace.spend(self.client_of(head), answers):
            PACED.inc()
            await asyncio.sleep(wait_s)

    def client_of(self, head: bytes | bytearray) -> str:
        """Returns the client of the request with this head."""
        return self.client or client_of_head(self._clients, self._peer, head)

    def close_if_unused(self) -> bool:
        """Closes a connection that has no request; returns whether it did."""

        return not self.recv_buffer and self.close_if_idle()
