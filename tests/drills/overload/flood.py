"""Clients that overload the service, one process per kind: `python -m tests.drills.overload.flood KIND PORT …`.

    creates RATE SECONDS CONNECTIONS ADDRESS   RATE requests per second, whatever the answers
    idle COUNT SECONDS                         connections without requests, from several addresses
    drips COUNT SECONDS                        half of them send heads, half bodies, a byte at a time
    bodies BYTES AT_ONCE                       large bodies, one after another, BYTES in all

Each prints one line of JSON when it is done. Requests follow the schedule, whatever the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import selectors
import socket
import sys
import time
from collections import Counter

BODY_BYTES = 4_000_000
TICK_S = 0.005
DRIP_S = 1.0
LOOPBACK = "127.0.0.1"


def creates(port: int, rate: float, seconds: float, connections: int, address: str) -> Counter[str]:
    """Sends requests in an open loop: on schedule, over the connections round-robin."""
    flood = _Flood(port, address, connections)
    began = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - sent
        sent += due
        flood.send(due)
        flood.receive(TICK_S)
    flood.seen["asked"] = sent
    flood.close()
    return flood.seen


class _Flood:
    def __init__(self, port: int, address: str, connections: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port = port
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._connect() for _ in range(connections)]
        self._next = 0

    def _connect(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        made.bind((self._address, 0))
        with contextlib.suppress(BlockingIOError):
            made.connect((LOOPBACK, self._port))
        self._selector.register(made, selectors.EVENT_READ)
        return made

    def send(self, count: int) -> None:
        for _ in range(count):
            self._next = (self._next + 1) % len(self._sockets)
            try:
                if self._sockets[self._next].send(REQUEST) < len(REQUEST):
                    self._again(self._sockets[self._next])
            except BlockingIOError:
                self.seen["not taken"] += 1  # the service does not read from the socket
            except OSError:
                self._again(self._sockets[self._next])

    def receive(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            found = key.fileobj
            assert isinstance(found, socket.socket)
            try:
                data = found.recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._again(found)
            for status in (b"201", b"429", b"503"):
                if count := data.count(b"HTTP/1.1 " + status):
                    self.seen[status.decode()] += count

    def _again(self, old: socket.socket) -> None:
        self.seen["connections lost"] += 1
        at = self._sockets.index(old)
        self._selector.unregister(old)
        old.close()
        self._sockets[at] = self._connect()

    def close(self) -> None:
        for each in self._sockets:
            each.close()


_BODY = json.dumps({"url": "https://example.org/of/the/flood"}).encode()
REQUEST = (
    b"POST /api/v1/links HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


async def idle(port: int, count: int, seconds: float) -> Counter[str]:
    """Opens connections from eight addresses, in groups that fit into the backlog of the listening socket."""

    seen: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    writers = []
    addresses = itertools.cycle(f"127.0.0.{n}" for n in range(10, 18))
    for _ in range(0, count, 100):
        made = await asyncio.gather(
            *(asyncio.open_connection(LOOPBACK, port, local_addr=(next(addresses), 0)) for _ in range(100)),
            return_exceptions=True,
        )
        for each in made:
            if isinstance(each, BaseException):
                seen[type(each).__name__] += 1
            else:
                writers.append(each)
    seen["opened"] = len(writers)
    await asyncio.sleep(max(0.0, ends - time.monotonic()))
    answered = await asyncio.gather(*(_is_answered(reader, 0.1) for reader, _ in writers))
    seen["closed by the service"] = sum(answered)
    return seen


async def _is_answered(reader: asyncio.StreamReader, patience_s: float) -> bool:
    """Whether the service sends something or closes the connection."""
    try:
        async with asyncio.timeout(patience_s):
            await reader.read(1_000)
    except TimeoutError:
        return False
    return True


async def drips(port: int, count: int, seconds: float) -> Counter[str]:
    seen: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    heads = b"GET /x HTTP/1.1\r\nX-Slow: "
    bodies = (
        b"POST /api/v1/links HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000\r\n\r\n"
    )

    async def one(begin: bytes) -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=("127.0.0.20", 0))
                writer.write(begin)
                while time.monotonic() < ends:
                    writer.write(b" ")
                    if await _is_answered(reader, DRIP_S):
                        seen["ended by the service"] += 1
                        break
                writer.close()

    await asyncio.gather(*(one(begin) for begin in (heads, bodies) for _ in range(count // 2)))
    return seen


async def bodies(port: int, total: int, at_once: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    left = itertools.count(0, BODY_BYTES)
    head = (
        "POST /api/v1/links/bulk HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {BODY_BYTES}\r\n\r\n"
    )
    chunk = b" " * 100_000

    async def one() -> None:
        while next(left) < total:
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=("127.0.0.21", 0))
                writer.write(head.encode())
                for _ in range(BODY_BYTES // len(chunk)):
                    writer.write(chunk)
                    await writer.drain()
                    seen["MB sent"] += len(chunk)
                seen[(await reader.read(12))[9:12].decode() or "lost"] += 1
                writer.close()
            except OSError:
                seen["lost"] += 1

    await asyncio.gather(*(one() for _ in range(at_once)))
    seen["MB sent"] //= 1_000_000
    return seen


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kind, port, *words = sys.argv[1:]
    match kind:
        case "creates":
            rate, seconds, connections, address = words
            seen = creates(int(port), float(rate), float(seconds), int(connections), address)
        case "idle":
            seen = asyncio.run(idle(int(port), int(words[0]), float(words[1])))
        case "drips":
            seen = asyncio.run(drips(int(port), int(words[0]), float(words[1])))
        case _:
            seen = asyncio.run(bodies(int(port), int(words[0]), int(words[1])))
    print(json.dumps({"kind": kind, **seen}))


if __name__ == "__main__":
    main()
