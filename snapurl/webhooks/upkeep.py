"""What the sender does now and then: notices links that have expired, deletes old messages, and counts those that
wait.

Expired links. A time that comes changes no row, so no trigger sees it. A pass reads the links that have expired
since the last one on each shard, and OVERLAP before that: links of a slot that has come from a shard whose last
pass was earlier. Once an hour, and at first, it reads a whole day back. A message of a link, a webhook and an
expiry has one id, so no pass adds it twice. Each call is a bounded transaction; after a kill the next sender
begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from snapurl.errors import SnapURLError
from snapurl.messages import Kind, Webhook
from snapurl.store.cluster.fanout import ShardSilent
from snapurl.store.webhooks import WebhookStore
from snapurl.telemetry.metrics import WEBHOOK_MESSAGES_WAITING, WEBHOOK_OVERDUE_SECONDS
from snapurl.webhooks.service import WebhookService

log = logging.getLogger("snapurl.webhooks")

EXPIRED_EVERY_S = 10.0
OVERLAP = timedelta(minutes=10)
READ_BACK = timedelta(days=1)
READ_BACK_EVERY_S = 3_600.0
PURGE_EVERY_S = 600.0
COUNT_EVERY_S = 10.0
SENT_KEPT = (
    10_000  # messages of a webhook on a shard, the newest; ten times as many of those that were given up
)
WAITING_MAX = 100_000  # messages of a webhook on a shard; beyond it the webhook is disabled
FULL = f"more than {WAITING_MAX:,} messages waited"


class Upkeep:
    """`clock` is monotonic. `days_kept` is how long messages are kept that do not wait."""

    def __init__(
        self, store: WebhookStore, service: WebhookService, days_kept: int, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._service = service
        self._days_kept = days_kept
        self._clock = clock
        self._done_at: dict[str, float] = {}
        self._expired_to: dict[str, datetime] = {}

    def begin(self) -> None:
        """Begins anew, as for a sender that has just become the active one."""
        self._done_at.clear()
        self._expired_to.clear()

    async def run_due(self, webhooks: Sequence[Webhook]) -> None:
        """Does what is due, for these webhooks."""
        if self._is_due("expired", EXPIRED_EVERY_S) and any(Kind.EXPIRED in each.kinds for each in webhooks):
            reads_back = self._is_due("read back", READ_BACK_EVERY_S)
            await self._on_each_shard(lambda name: self._notify_expired(name, reads_back))
        if self._is_due("count", COUNT_EVERY_S):
            await self._count(webhooks)
        if self._is_due("purge", PURGE_EVERY_S):
            await self._purge(webhooks)

    def _is_due(self, what: str, every_s: float) -> bool:
        is_due = self._clock() >= self._done_at.get(what, float("-inf")) + every_s
        if is_due:
            self._done_at[what] = self._clock()
        return is_due

    async def _on_each_shard(self, work: Callable[[str], Awaitable[None]]) -> None:
        for name in self._store.shard_names:
            try:
                await work(name)
            except ShardSilent as error:
                log.debug("left for the next time: %s", error)

    async def _notify_expired(self, name: str, reads_back: bool) -> None:
        began = datetime.now(UTC)
        since = self._expired_to.get(name)
        if since is None or reads_back:
            since = began - READ_BACK
        place: tuple[datetime, str] | None = (since - OVERLAP, "")
        while place is not None:
            place = await self._store.notify_expired(name, *place)
        self._expired_to[name] = began

    async def _count(self, webhooks: Sequence[Webhook]) -> None:
        """Counts the messages that wait, and disables a webhook for which there are too many."""
        waiting, overdue_s = 0, 0.0
        full: set[str] = set()

        async def count(name: str) -> None:
            nonlocal waiting, overdue_s
            for webhook_id, (some, oldest_s) in (await self._store.waiting(name)).items():
                waiting += some
                if webhook_id in enabled:
                    overdue_s = max(overdue_s, oldest_s)
                if some > WAITING_MAX:
                    full.add(webhook_id)

        enabled = {each.webhook_id for each in webhooks if each.is_enabled}
        if webhooks:
            await self._on_each_shard(count)
        WEBHOOK_MESSAGES_WAITING.set(waiting)
        WEBHOOK_OVERDUE_SECONDS.set(overdue_s)
        for webhook_id in full & enabled:
            try:
                await self._service.disable(webhook_id, FULL)
            except SnapURLError as error:
                log.warning("webhook %s has too many messages that wait: %s", webhook_id, error.detail)

    async def _purge(self, webhooks: Sequence[Webhook]) -> None:
        try:
            gone = await self._store.gone()
        except SnapURLError as error:
            log.debug("old messages stay: %s", error.detail)
            return
        there = [each.webhook_id for each in webhooks]

        async def purge(name: str) -> None:
            while await self._store.purge(name, there, gone, self._days_kept, SENT_KEPT):
                pass

        await self._on_each_shard(purge)
