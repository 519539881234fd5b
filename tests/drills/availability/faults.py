"""The faults: each breaks one thing for a while and repairs it as a launcher or a platform would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Program
from snapurl.local.cluster import LocalCluster
from snapurl.local.postgres_server import PostgresServer
from tests.failover.test_failover import pids_of

FULL_SHARD = "db3"
DISK_MIB = 600
MENDED_S = 1.5  # before the next fault: workers resend the clicks that Redis did not accept


@dataclass
class Kept:
    """A program that is restarted after a kill, as a platform does."""

    name: str
    start: Callable[[], Awaitable[Program]]
    program: Program

    async def again(self) -> None:
        self.program = await self.start()

    @property
    def running(self) -> Program:
        """Returns the program. Fails if it exited without a fault having killed it."""
        code = self.program.process.returncode
        assert code is None, f"{self.name} ended by itself, with {code}: {self.program.last_words()}"
        return self.program


def mount_disk(place: Path) -> bool:
    """Mounts a small separate disk for the data of a shard. Returns False where that is not allowed.

    The mount exists only in the mount namespace of this run and disappears with it.
    """
    place.mkdir(parents=True, mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "snapurl-test", str(place)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0


class Faults:
    """Chooses faults and causes them. `killed` has the (time, API host) of each killed worker."""

    def __init__(
        self,
        cluster: LocalCluster,
        apis: Sequence[Program],
        consumers: Sequence[Kept],
        migrator: Kept,
        rng: random.Random,
        *,
        small_disk: Path | None,
        last_s: tuple[float, float],
    ) -> None:
        self.killed: list[tuple[float, int]] = []
        self._cluster = cluster
        self._apis = apis
        self._consumers = consumers
        self._migrator = migrator
        self._rng = rng
        self._disk = small_disk
        self._last_s = last_s
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self.worker_killed,
            "worker frozen": self.worker_frozen,
            "shard killed": self.shard_killed,
            "shard frozen": self.shard_frozen,
            "Redis killed": self.redis_killed,
            "Redis frozen": self.redis_frozen,
            "consumer killed": self.consumer_killed,
            "consumer frozen": self.consumer_frozen,
            "migrator killed": self.migrator_killed,
            "migrator frozen": self.migrator_frozen,
        }
        if small_disk:
            self.kinds["disk full"] = self.disk_full

    async def _last(self) -> None:
        await asyncio.sleep(self._rng.uniform(*self._last_s))

    # -- workers -----------------------------------------------------------------------------------------------

    def _worker(self) -> tuple[int, int]:
        """Returns an API host and the process id of one of its workers."""
        api = self._rng.randrange(len(self._apis))
        supervisor = self._apis[api].pid
        workers = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        return api, int(self._rng.choice(sorted(workers)))

    async def worker_killed(self) -> None:
        """Kills a worker; its supervisor starts another."""
        api, pid = self._worker()
        os.kill(pid, signal.SIGKILL)
        self.killed.append((asyncio.get_running_loop().time(), api))
        await self._last()

    async def worker_frozen(self) -> None:
        _, pid = self._worker()
        await self._frozen([pid])

    async def _frozen(self, pids: Sequence[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await self._last()
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- servers -----------------------------------------------------------------------------------------------

    def _shard(self) -> PostgresServer:
        return self._cluster.shard(self._rng.choice(sorted(self._cluster.dsns)))

    async def shard_killed(self) -> None:
        server = self._shard()
        await server.kill()
        await self._last()
        await server.start()

    async def shard_frozen(self) -> None:
        await self._frozen(pids_of(self._shard()))

    async def disk_full(self) -> None:
        """Fills the disk of a shard, so that it rejects writes, and restarts its server if that crashes."""
        assert self._disk is not None
        ballast = self._disk / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(self._disk)
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        await self._last()
        ballast.unlink()
        server = self._cluster.shard(FULL_SHARD)
        if server.pid is None:
            await server.start()

    async def redis_killed(self) -> None:
        await self._cluster.redis.kill()
        await self._last()
        await self._cluster.redis.start()

    async def redis_frozen(self) -> None:
        pid = self._cluster.redis.pid
        assert pid is not None
        await self._frozen([pid])

    # -- the others --------------------------------------------------------------------------------------------

    async def consumer_killed(self) -> None:
        await self._killed(self._rng.choice(self._consumers))

    async def consumer_frozen(self) -> None:
        await self._frozen([self._rng.choice(self._consumers).running.pid])

    async def migrator_killed(self) -> None:
        await self._killed(self._migrator)

    async def migrator_frozen(self) -> None:
        await self._frozen([self._migrator.running.pid])

    async def _killed(self, kept: Kept) -> None:
        process = kept.running.process
        process.kill()
        await process.wait()
        await self._last()
        await kept.again()
