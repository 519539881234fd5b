"""The switch between the hosts: a process that forwards, drops or delays packets.

    python -m tests.drills.hosts.switch SEED ADDRESS=FD …

It reads one line of JSON per change from its standard input, with all faults from then on, and prints "ok" when
they are in force: `{"cut": [[from, to], …], "delay_ms": 25, "loss": 0.05}`. A cut is silent and has one direction:
packets are dropped, and the sender gets no error.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

PACKETS_AT_ONCE = 64
WAITING_MAX = 50_000  # delayed packets; further ones are dropped, as in any switch
_READ_BYTES = 65_536
_IPV4 = 4


@dataclass
class Switch:
    """`tunnels` is address -> file descriptor."""

    tunnels: dict[bytes, int]
    rng: random.Random
    cut: set[tuple[bytes, bytes]] = field(default_factory=set)
    delay_s: float = 0.0
    loss: float = 0.0
    late: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    count: int = 0

    def change(self, faults: dict[str, Any]) -> None:
        self.cut = {(socket.inet_aton(source), socket.inet_aton(target)) for source, target in faults["cut"]}
        self.delay_s = faults["delay_ms"] / 1000
        self.loss = faults["loss"]

    def take(self, fd: int) -> None:
        """Forwards what a host has sent."""
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return
            if packet[0] >> 4 == _IPV4:
                self._pass_on(packet)

    def _pass_on(self, packet: bytes) -> None:
        source, target = packet[12:16], packet[16:20]
        tunnel = self.tunnels.get(target)
        if tunnel is None or (source, target) in self.cut:
            return
        if self.loss and self.rng.random() < self.loss:
            return
        if not self.delay_s:
            _send(tunnel, packet)
        elif len(self.late) < WAITING_MAX:
            self.count += 1
            heapq.heappush(self.late, (time.monotonic() + self.delay_s, self.count, tunnel, packet))

    def due(self) -> float | None:
        """Sends the packets that are due. Returns the seconds until the next one, or None if none waits."""
        while self.late:
            left = self.late[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, tunnel, packet = heapq.heappop(self.late)
            _send(tunnel, packet)
        return None


def _send(tunnel: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # its queue is full, or the host no longer exists
        os.write(tunnel, packet)


def run(switch: Switch) -> None:
    """Runs until the standard input ends."""
    poll = select.epoll()
    orders = sys.stdin.fileno()
    poll.register(orders, select.EPOLLIN)
    for tunnel in switch.tunnels.values():
        poll.register(tunnel, select.EPOLLIN)
    while True:
        left = switch.due()
        for fd, _ in poll.poll(left if left is not None else -1):
            if fd != orders:
                switch.take(fd)
                continue
            line = sys.stdin.buffer.readline()
            if not line:
                return
            switch.change(json.loads(line))
            print("ok", flush=True)


def main() -> None:
    pairs = (word.split("=") for word in sys.argv[2:])
    tunnels = {socket.inet_aton(address): int(fd) for address, fd in pairs}
    run(Switch(tunnels, random.Random(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
