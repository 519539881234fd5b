"""What a worker knows of the cluster, read once a second at most, for however many pages ask or watch.

Nothing here waits for a shard that does not answer: what is not there within PATIENCE_S is shown as it was last
known. Rates and times are those between two readings, RATES_S apart if somebody has watched for so long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from snapurl.errors import SnapURLError
from snapurl.http.context import Services
from snapurl.model import OwnCounts
from snapurl.tasks import CachedCall, cancel_and_wait
from snapurl.telemetry.own_counts import read_own_counts
from snapurl.ui.cluster_view import RECENT_CHANGES, ClusterSample, ClusterView, view_of
from snapurl.ui.live import Sampler
from snapurl.ui.ring_picture import ARCS_DRAWN

SAMPLE_S = 1.0
PATIENCE_S = 0.4  # for the shards and Redis to answer
RATES_S = 10.0
RATES_S_MAX = 30.0  # older readings say nothing about now
CHANGES_AGE_S = 5.0  # of what is read of the audit log

T = TypeVar("T")


class ClusterLive:
    """The cluster as this worker sees it. `render` makes the data of an event, one line, from a view."""

    def __init__(self, services: Services, render: Callable[[ClusterView], str]) -> None:
        self._services = services
        self._render = render
        self._reshard = _Patient(services.reshard)
        self._readiness = _Patient(services.readiness)
        self._lag = _Patient(services.click_lag)
        self._recent = CachedCall(lambda: services.changes(RECENT_CHANGES), CHANGES_AGE_S)
        self._changes = _Patient(self._recent)
        self._counts: deque[OwnCounts] = deque(maxlen=int(RATES_S / SAMPLE_S))
        self.view = CachedCall(self._read, SAMPLE_S * 0.9)  # so that the sampler gets a new one each time
        self.events = Sampler(self.event, SAMPLE_S)

    async def event(self) -> str:
        """Returns the data of an event about the newest view."""
        return self._render(await self.view())

    async def close(self) -> None:
        await self.view.close()
        await self._recent.close()
        for patient in (self._reshard, self._readiness, self._lag, self._changes):
            await patient.close()

    async def _read(self) -> ClusterView:
        services = self._services
        reshard, readiness, lag, changes = await asyncio.gather(
            self._reshard(), self._readiness(), self._lag(), self._changes()
        )
        l1_links, l1_bytes = services.cache.l1_size
        counts = read_own_counts()
        while self._counts and counts.at_s - self._counts[0].at_s > RATES_S_MAX:
            self._counts.popleft()
        before = self._counts[0] if self._counts else counts
        self._counts.append(counts)
        return view_of(
            ClusterSample(
                at=services.clock(),
                ring=services.ring_view(),
                arcs=services.arcs(ARCS_DRAWN),
                shards=services.shard_states(),
                reshard=self._aged(reshard),
                lag=lag,
                redis_fault=readiness.faults.get("redis") if readiness is not None else None,
                held=services.clicks_held(),
                l1_links=l1_links,
                l1_bytes=l1_bytes,
                changes=changes or (),
                counts=counts,
                counts_before=before,
            )
        )

    def _aged(self, reshard: Any) -> Any:
        """Returns the migrator's document, as old as it is by now."""
        return None if reshard is None else {**reshard, "age_s": reshard["age_s"] + self._reshard.age_s}


class _Patient(Generic[T]):
    """Calls `call`, and returns its last result if it takes longer than PATIENCE_S; the call goes on meanwhile.

    The result is None until there is one. `age_s` is its age.
    """

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._running: asyncio.Task[None] | None = None
        self._last: T | None = None
        self._at_s = monotonic()

    @property
    def age_s(self) -> float:
        return monotonic() - self._at_s

    async def __call__(self) -> T | None:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        await asyncio.wait((self._running,), timeout=PATIENCE_S)
        return self._last

    async def close(self) -> None:
        await cancel_and_wait(self._running)

    async def _run(self) -> None:
        try:
            self._last = await self._call()
            self._at_s = monotonic()
        except SnapURLError:
            return  # the last result stays
