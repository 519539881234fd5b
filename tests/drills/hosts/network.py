"""The hosts, their network, and the faults in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.drills.hosts.tunnel import open_tunnel

HERE = "here"  # the host of the test itself: visitors, clients, the operator
NETWORK = "10.77.0."
UP_S_MAX = 10.0
_ALONE = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def isolated(*words: str) -> list[str]:
    """Returns a command line that runs `words` in separate network and PID namespaces.

    All its processes end with it, even if it is killed: the kernel kills a PID namespace when its first process
    dies.
    """
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return ["unshare", *as_root, *_ALONE, *words]


def why_not() -> str | None:
    """Returns why hosts cannot be created here, or None if they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if missing := [name for name in ("unshare", "nsenter") if not shutil.which(name)]:
        return f"no {' and no '.join(missing)} here (util-linux)"
    attempt = subprocess.run(
        isolated(sys.executable, "-m", "tests.drills.hosts.tunnel", f"{NETWORK}1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=UP_S_MAX,
        check=False,
    )
    if attempt.returncode == 0:
        return None
    said = attempt.stderr.strip().splitlines() or ["no reason given"]
    return f"no right to make a network namespace with a device: {said[-1]}"


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. `prefix` goes before a command line to run it there."""

    name: str
    address: str
    prefix: tuple[str, ...] = ()


@dataclass
class Network:
    """All hosts, with a switch between them. It has no faults at first."""

    hosts: dict[str, Host]
    switch: asyncio.subprocess.Process
    _cut: set[tuple[str, str]] = field(default_factory=set)
    _delay_ms: float = 0.0
    _loss: float = 0.0

    async def cut(self, one: str, others: Iterable[str], *, both: bool = True) -> None:
        """Drops all packets from `one` to `others` from now on and, if `both`, those in the other direction."""
        for other in others:
            self._cut.add((one, other))
            if both:
                self._cut.add((other, one))
        await self._send_order()

    async def isolate(self, name: str) -> None:
        """Cuts a host off from all others."""
        await self.cut(name, self.hosts.keys() - {name})

    async def worsen(self, *, delay_ms: float, loss: float) -> None:
        """Delays every packet by `delay_ms`, and drops the share `loss` of them."""
        self._delay_ms, self._loss = delay_ms, loss
        await self._send_order()

    async def heal(self) -> None:
        self._cut.clear()
        self._delay_ms, self._loss = 0.0, 0.0
        await self._send_order()

    async def _send_order(self) -> None:
        assert self.switch.stdin is not None and self.switch.stdout is not None
        cut = sorted((self.hosts[one].address, self.hosts[other].address) for one, other in self._cut)
        order = {"cut": cut, "delay_ms": self._delay_ms, "loss": self._loss}
        self.switch.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(UP_S_MAX):
            assert await self.switch.stdout.readline() == b"ok\n"


@contextlib.asynccontextmanager
async def network(names: Iterable[str], seed: int) -> AsyncIterator[Network]:
    """Yields a network of the hosts `names` and HERE. Call it in a process that `isolated` has started."""
    ours = Host(HERE, NETWORK + "250")
    hosts, tunnels, ends = {HERE: ours}, {ours.address: open_tunnel(ours.address)}, []
    keepers = []
    try:
        for number, name in enumerate(names, 1):
            address = f"{NETWORK}{number}"
            near, far = socket.socketpair()
            ends.append(near)
            keepers.append(_keeper(address, far))
            far.close()
            hosts[name] = Host(name, address, ("nsenter", f"--net=/proc/{keepers[-1].pid}/ns/net", "--"))
        for near, host in zip(ends, list(hosts.values())[1:], strict=True):
            near.settimeout(UP_S_MAX)
            tunnels[host.address] = socket.recv_fds(near, 2, 1)[1][0]
        switch = await _switch(tunnels, seed)
        try:
            yield Network(hosts, switch)
        finally:
            switch.kill()
            await switch.wait()
    finally:
        for tunnel in tunnels.values():
            os.close(tunnel)
        for near in ends:
            near.close()
        for keeper in keepers:
            keeper.wait(UP_S_MAX)


def _keeper(address: str, far: socket.socket) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("tunnel.py")
    return subprocess.Popen(
        ["unshare", "--net", sys.executable, "-S", program, address, str(far.fileno())],
        pass_fds=[far.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


async def _switch(tunnels: dict[str, int], seed: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.hosts.switch", str(seed)),
        *(f"{address}={fd}" for address, fd in tunnels.items()),
        pass_fds=list(tunnels.values()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
