"""An attacker: sends requests from one address as fast as they are answered, over pipelined connections.

    echo '{"seconds": 30, "ports": [8000], "codes": ["abc"], "address": "127.0.0.9"}' |
        python -m tests.hostile.attacker tests.hostile.bodies:ATTACK

As a process it has a lower priority than what it attacks (`nice`), and the cores that its parent may not use
(`taskset`), if there are any. It prints a line when it begins and one of JSON when it ends: how many answers it
got, by status, and how often it tried to connect.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from snapurl.tasks import cancel_and_wait

HOST = "127.0.0.1"
NICE = 10
RETRY_S = 0.05  # after a connection that could not be made
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
STATUS_BYTES = 12
CONNECTIONS = "connections"


@dataclass(frozen=True)
class Attack:
    """What is sent: an endless iterator of requests, given the codes of some links that exist.

    `statuses` are those that the service may answer with. With no `connections` the process only takes CPU time.
    """

    requests: Callable[[Sequence[str]], Iterator[bytes]]
    statuses: frozenset[int]
    connections: int = 64
    pipelined: int = 4


class Talk(asyncio.Protocol):
    """One connection with `pipelined` requests without an answer at any time."""

    def __init__(self, requests: Iterator[bytes], pipelined: int, seen: Counter[int]) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._due = pipelined
        self._seen = seen
        self._tail = b""
        self._is_paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        self._tail = data[1 - STATUS_BYTES :]
        statuses = STATUS.findall(data)
        self._seen.update(map(int, statuses))
        self._due += len(statuses)
        self._send()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._due = 0
        if not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        while self._due and not self._is_paused:
            assert self._transport is not None
            self._due -= 1
            self._transport.write(next(self._requests))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def attack(
    kind: Attack,
    ports: Sequence[int],
    codes: Sequence[str],
    address: str,
    seen: Counter[int],
    event: Awaitable[object],
) -> int:
    """Attacks until `event` is done; counts the answers in `seen`. Returns how often it tried to connect."""
    requests, tried = kind.requests(codes), 0
    loop = asyncio.get_running_loop()

    async def connect_again_and_again(port: int) -> None:
        nonlocal tried
        while True:
            talk = Talk(requests, kind.pipelined, seen)
            tried += 1
            try:
                await loop.create_connection(lambda: talk, HOST, port, local_addr=(address, 0))  # noqa: B023  # awaited here
                await talk.over
            except OSError:
                await asyncio.sleep(RETRY_S)
            finally:
                talk.close()

    talking = [
        asyncio.create_task(connect_again_and_again(ports[number % len(ports)]))
        for number in range(kind.connections)
    ]
    try:
        await event
    finally:
        await cancel_and_wait(*talking)
    return tried


async def busy(seconds: float) -> None:
    """Takes CPU time and does nothing else."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def cores_apart() -> set[int]:
    """Returns the cores that this process may not use."""
    return set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)


def named(name: str) -> Attack:
    """Returns the attack `module:NAME`."""
    module, _, attribute = name.partition(":")
    found: Attack = getattr(importlib.import_module(module), attribute)
    return found


async def _main(kind: Attack, seconds: float, **where: Any) -> dict[str, int]:
    print(flush=True)
    seen = Counter[int]()
    tried = await attack(
        kind, **where, seen=seen, event=asyncio.sleep(seconds) if kind.connections else busy(seconds)
    )
    return {**{str(status): count for status, count in seen.items()}, CONNECTIONS: tried}


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), NICE))
    if apart := cores_apart():
        os.sched_setaffinity(0, apart)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(uvloop.run(_main(named(sys.argv[1]), **json.load(sys.stdin)))))
