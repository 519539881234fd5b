"""What connections may take from a worker: how many there are, how long a request may arrive, how much bodies hold.

Theory. Sanic's time-outs count from the last byte that has arrived, so a client that sends one every few seconds
keeps its connection, and what its request holds, for as long as it likes. Here a head counts from its first byte,
and each byte of a body buys only the time it takes at BODY_BYTES_PER_S_MIN: Sanic's own time-outs then end both.

Connections are counted per worker and, unless a proxy stands in front, per address. When there are too many, an old
one that is idle gives way to who comes; if there is none, who comes is told to come back. So clients that only hold
connections cannot shut out those who ask.

Bodies are read by handlers into memory, all of one worker into the same room. Who finds it full is told to come
back; a body that is refused is read no further than into a buffer that is thrown away.
"""

from __future__ import annotations

import itertools
import resource
from typing import Any

from sanic.http import Stage
from sanic.server import HttpProtocol

from snapurl.http.wire.chunks import OneWayHttp
from snapurl.telemetry.metrics import CONNECTIONS, CONNECTIONS_REFUSED

CONNECTIONS_MAX = 10_000  # per worker, if it may have that many open files
OPEN_FILES_RESERVED = 500  # for shards, Redis, logs
OPEN_FILES_MAX = 65_536
ADDRESS_PART = 4  # one address may have a fourth of the connections
LOOKED_AT_MAX = 32  # connections, for one that is idle
BODY_BYTES_PER_S_MIN = 16_384
BODIES_BYTES_MAX = 33_554_432  # in memory at a time, per worker
BODIES_MIN = 2  # of the largest size that is allowed

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def raise_open_files() -> int:
    """Lets this process have as many open files as it is allowed; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else soft


class ConnectionBudget:
    """The connections of one worker, the oldest about first."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._here: dict[BoundedProtocol, None] = {}
        self._by_address: dict[str, int] = {}

    @classmethod
    def of(cls, open_files: int, *, by_address: bool) -> ConnectionBudget:
        """For a process that may have that many open files; behind a proxy all have one address."""
        most = max(1, min(CONNECTIONS_MAX, open_files - OPEN_FILES_RESERVED))
        return cls(most, max(1, most // ADDRESS_PART) if by_address else most)

    def enter(self, connection: BoundedProtocol, address: str) -> bool:
        """Whether there is room for one more; made, if need be, by closing one that is idle."""
        if self._by_address.get(address, 0) >= self._most_per_address:
            CONNECTIONS_REFUSED.labels("address").inc()
            return False
        if len(self._here) >= self._most and not self._close_idle():
            CONNECTIONS_REFUSED.labels("all").inc()
            return False
        self._here[connection] = None
        self._by_address[address] = self._by_address.get(address, 0) + 1
        CONNECTIONS.inc()
        return True

    def leave(self, connection: BoundedProtocol, address: str) -> None:
        if connection not in self._here:
            return
        del self._here[connection]
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        CONNECTIONS.dec()

    def _close_idle(self) -> bool:
        for connection in list(itertools.islice(self._here, LOOKED_AT_MAX)):
            if connection.close_if_unused():
                self.leave(connection, connection.address)  # it has yet to hear that it is lost
                return True
            self._here[connection] = self._here.pop(connection)  # in use: it goes to the end
        return False


class BodyBudget:
    """How many bytes of bodies are in memory."""

    def __init__(self, body_bytes_max: int) -> None:
        self._left = max(BODIES_BYTES_MAX, BODIES_MIN * body_bytes_max)

    def take(self, count: int) -> bool:
        """Whether there is room for so many more; they must be given back."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        self._left += count


class BoundedProtocol(HttpProtocol):
    """Sanic's protocol within the bounds; its crowd is `app.ctx.crowd`."""

    HTTP_CLASS = OneWayHttp
    __slots__ = ("_connection_budget", "_is_refused", "address")

    def __init__(self, *, app: Any, **others: Any) -> None:
        super().__init__(app=app, **others)
        self._connection_budget: ConnectionBudget = app.ctx.connection_budget
        self.address = ""
        self._is_refused = False

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if self._connection_budget.enter(self, self.address):
            super().connection_made(transport)  # type: ignore[no-untyped-call]
            return
        self._is_refused = True
        self.transport = transport
        transport.write(BUSY)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._is_refused:
            return
        self._connection_budget.leave(self, self.address)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """What comes while a request is arriving does not begin its time anew."""
        if self._is_refused:
            return
        before, http = self._time, self.http
        is_arriving = http is not None and (http.stage is not Stage.IDLE or http.request is not None)
        super().data_received(data)
        if is_arriving:
            earned_s = 0.0 if http.stage is Stage.REQUEST else len(data) / BODY_BYTES_PER_S_MIN
            self._time = min(self._time, before + earned_s)

    def close_if_unused(self) -> bool:
        """Closes a connection on which nothing is asked; False if something is."""
        return not self.recv_buffer and self.close_if_idle()
