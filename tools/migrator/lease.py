"""The lease of the migrators: all but one stand by. It saves work; safety rests on the tokens of the hand-off.

The lease and the status of its holder are on every shard of the newest topology, so that any shard may leave or be
down. A candidate asks the shards by name and stops at the first refusal. The holder renews all of them at once, and
stops working when one refuses. Of two migrators the one with the lease on the first shard gets all others in time.
So two work at once only where no shard answers both, or while one does not know yet that it was refused.

A shard that does not answer is left alone for SILENT_S and delays no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import asyncpg

from ring.errors import RingError
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import CLUSTER, ShardFailed
from tools.cluster.fleet import Fleet
from tools.cluster.sql import SQL

LEASE_MS = 3_000
IDLE_LEASE_MS = 5_000  # of a holder with nothing to do, which renews it more rarely
ANSWER_S_MAX = 2.0  # with the time between two beats less than the lease
SILENT_S = 2.0


class Lease:
    """The lease of one migrator, `holder`. `fleet` belongs to it alone."""

    def __init__(self, fleet: Fleet, holder: UUID, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._holder = holder
        self._clock = clock
        self._held = False
        self.is_answered = False  # by any shard, when it was last renewed
        self._silent_until: dict[str, float] = {}
        self._newer: set[str] = set()  # shards that know a newer topology

    @property
    def topology(self) -> Topology:
        """The newest topology that a shard has told of."""
        return self._fleet.topology

    async def renew(self, status: str, lease_ms: int = LEASE_MS) -> bool:
        """Takes or renews the lease, for `lease_ms`, and leaves the status document.

        Returns whether this migrator may work. It may not if no shard answers.
        """
        now = self._clock()
        names = [
            shard.name for shard in self.topology.shards if self._silent_until.get(shard.name, now) <= now
        ]
        answers: list[bool | None] = []
        if self._held:
            answers += await asyncio.gather(*(self._ask(name, status, lease_ms) for name in names))
        else:
            for name in names:
                answers.append(await self._ask(name, status, lease_ms))
                if answers[-1] is False:
                    break
        self._held = True in answers and False not in answers
        self.is_answered = any(answer is not None for answer in answers)
        await self._refresh_topology()
        return self._held

    async def _ask(self, name: str, status: str, lease_ms: int) -> bool | None:
        """Returns whether a shard gives the lease; None if it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                (row,) = await self._fleet.fetch(name, SQL["lease"], self._holder, lease_ms, status)
        except (TimeoutError, ShardFailed, ConfigError, asyncpg.PostgresError):
            self._silent_until[name] = self._clock() + SILENT_S
            return None
        if row["topology"] > self.topology.version:
            self._newer.add(name)
        held: bool = row["held"]
        return held

    async def _refresh_topology(self) -> None:
        names, self._newer = self._newer, set()
        for name in names:
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    (row,) = await self._fleet.fetch(name, CLUSTER["topology"])
                self._fleet.adopt(Topology.from_json(row["document"]))
            except (TimeoutError, ShardFailed, ConfigError, RingError, asyncpg.PostgresError):
                continue  # the next beat tries again
