"""Sends the messages of webhooks: at least once, and those about one link in their order.

Theory. A message is in the shard of its link since the transaction of its change, and stays there until an
attempt to deliver it is settled. So nothing is lost, whoever is killed. What this module adds:

- *One sender.* It works in the click consumer that has the lease. The lease depends on a clock, so it only avoids
  waste: a message is claimed in its shard before it is sent, for HELD_S. A sender that gets the lease takes back
  what the one before it held, and sends that again, under the same id. Receivers tell by the id.
- *Order.* A claim gives the first waiting message of a link alone. The next one can be claimed once that is
  settled as sent or dead. While it waits for another attempt, all messages about this link do, and no others.
- *Moves.* A message moves with its slot. To settle it, the router finds its shard. A claim that was copied to
  another shard is over after HELD_S there, unless it is settled.
- *Receivers apart.* Each webhook has WEBHOOK_DELIVERIES_MAX deliveries under way, and one while its receiver
  fails; after each failure it rests, the longer the more have failed in a row. So a receiver that is slow, silent
  or down delays nobody else, and is not attacked.
- *What there is to send to* is read every COMPARE_S from all shards, and compared with what each shard knows of
  it.

Where a bound is reached, messages wait in their shards.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.messages import Message, MessageState, Webhook
from snapurl.outbound import is_public
from snapurl.store.cluster.fanout import ShardSilent
from snapurl.store.webhooks import WebhookStore
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.metrics import WEBHOOK_DELIVERIES
from snapurl.webhooks.delivery import AttemptResult, Deliverer
from snapurl.webhooks.service import WebhookService, utc_now
from snapurl.webhooks.upkeep import Upkeep

log = logging.getLogger("snapurl.webhooks")

COMPARE_S = 2.0  # between two comparisons; a change of a webhook takes effect within this time
COMPARE_ALL_S = 30.0  # between two that ask all shards, while there is no webhook
POLL_S = 0.5  # between two looks for messages that are due, while there are none
STANDBY_S = 0.25
SILENT_S = 5.0  # for which a shard that does not answer is left alone
HELD_S = 60  # after which a claim is over; longer than an attempt and SETTLE_S_MAX
SETTLE_S_MAX = 30.0  # then the outcome of an attempt is forgotten, and the message is sent again
SETTLE_RETRY_S = 0.5
WEBHOOK_DELIVERIES_MAX = 4  # at once
DELIVERIES_MAX = 256  # at once; from half of them on a webhook starts one only if it has none under way
REST_S_MAX = 60.0  # of a webhook whose receiver fails: as many seconds as attempts have failed in a row

_LABELS = {MessageState.SENT: "sent", MessageState.WAITING: "failed", MessageState.DEAD: "dead"}


def make_sender(
    settings: Settings, store: WebhookStore, works: Callable[[], bool], clock: Callable[[], float]
) -> Sender:
    """Makes the sender of a deployment."""
    networks = settings.receiver_networks

    def is_allowed(address: str) -> bool:
        return is_public(address) or any(ip_address(address.partition("%")[0]) in each for each in networks)

    service = WebhookService(store)
    deliverer = Deliverer(settings.link_domains, utc_now, is_allowed=is_allowed)
    upkeep = Upkeep(store, service, settings.webhook_days_kept, clock)
    return Sender(store, service, deliverer, upkeep, works, clock)


@dataclass(slots=True)
class _Lane:
    """What is under way for one webhook. `failures` in a row; it rests until `rests_until`."""

    webhook: Webhook
    running: int = 0
    failures: int = 0
    rests_until: float = 0.0


class Sender:
    """Runs until it is cancelled. `works` says whether this process is the active one, `clock` is monotonic."""

    def __init__(
        self,
        store: WebhookStore,
        service: WebhookService,
        deliverer: Deliverer,
        upkeep: Upkeep,
        works: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._service = service
        self._deliverer = deliverer
        self._upkeep = upkeep
        self._works = works
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._lanes: dict[str, _Lane] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._taken_over: set[str] = set()  # shards at which nothing is held by senders before this one
        self._silent_until: dict[str, float] = {}
        self._compared_at = float("-inf")
        self._compared_all_at = float("-inf")

    async def run(self) -> None:
        try:
            while True:
                if not self._works():
                    self._taken_over.clear()
                    self._compared_at = self._compared_all_at = float("-inf")
                    self._upkeep.begin()
                    await asyncio.sleep(STANDBY_S)
                elif not await self._step():
                    await self._pause()
        finally:
            await cancel_and_wait(*self._deliveries)

    async def _pause(self) -> None:
        """Waits until it is time to look again, or a delivery has ended, so that the next one may be due."""
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        elif self._lanes:
            await asyncio.sleep(POLL_S)
        else:
            await asyncio.sleep(max(0.0, self._compared_at + COMPARE_S - self._clock()))

    async def _step(self) -> bool:
        """Whether there may be more messages that are due."""
        if self._clock() >= self._compared_at + COMPARE_S:
            self._compared_at = self._clock()
            if await self._may_have_changed():
                self._compared_all_at = self._clock()
                await self._compare()
        await self._upkeep.run_due([lane.webhook for lane in self._lanes.values()])
        found = False
        for name in self._store.shard_names:
            limits = self._limits()
            if limits and self._silent_until.get(name, 0.0) <= self._clock():
                found = await self._take(name, limits) or found
        return found

    def _limits(self) -> dict[str, int]:
        """Returns how many deliveries may start now for each webhook that may have one."""
        now, left = self._clock(), DELIVERIES_MAX - len(self._deliveries)
        limits: dict[str, int] = {}
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.running):
            most = 1 if lane.failures else WEBHOOK_DELIVERIES_MAX
            some = min(most - lane.running, left if lane.running == 0 else left - DELIVERIES_MAX // 2)
            if some > 0 and lane.webhook.is_enabled and now >= lane.rests_until:
                limits[lane.webhook.webhook_id] = some
                left -= some
        return limits

    async def _take(self, name: str, limits: dict[str, int]) -> bool:
        """Starts deliveries of a shard's messages. Whether there were any."""
        try:
            if name not in self._taken_over:
                await self._store.release(name, self._holder)
                self._taken_over.add(name)
            messages = await self._store.claim(name, self._holder, limits, HELD_S)
        except ShardSilent as error:
            self._silent_until[name] = self._clock() + SILENT_S
            log.debug("no messages are taken: %s", error)
            return False
        for message in messages:
            lane = self._lanes[message.webhook_id]
            lane.running += 1
            delivery = asyncio.create_task(self._deliver(lane, message), name=f"message {message.message_id}")
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)
        return bool(messages)

    async def _deliver(self, lane: _Lane, message: Message) -> None:
        try:
            outcome = await self._deliverer.deliver(lane.webhook, message)
            WEBHOOK_DELIVERIES.labels(_LABELS[outcome.state]).inc()
            if outcome.is_sent:
                lane.failures = 0
            else:
                lane.failures += 1
                lane.rests_until = self._clock() + min(lane.failures, REST_S_MAX)
            await self._settle(message, outcome)
            if outcome.is_gone:
                await self._service.disable(message.webhook_id, outcome.answer)
        except SnapURLError as error:
            log.warning("message %s is sent again: %s", message.message_id, error.detail)
        finally:
            lane.running -= 1

    async def _settle(self, message: Message, outcome: AttemptResult) -> None:
        """Notes the outcome in the shard. Raises Unavailable, OutcomeUnknown if that takes too long."""
        deadline = self._clock() + SETTLE_S_MAX
        while True:
            try:
                return await self._store.settle(
                    message, self._holder, outcome.state, outcome.wait_s, outcome.status, outcome.answer
                )
            except SnapURLError:
                if self._clock() > deadline:
                    raise
                await asyncio.sleep(SETTLE_RETRY_S)

    # -- what there is to send to ----------------------------------------------------------------------------

    async def _may_have_changed(self) -> bool:
        """While there is no webhook, one shard tells that there still is none: a new one is known on all."""
        if self._lanes or self._clock() >= self._compared_all_at + COMPARE_ALL_S:
            return True
        try:
            return bool(await self._store.watches(self._store.shard_names[0]))
        except ShardSilent:
            return True

    async def _compare(self) -> None:
        """Reads which webhooks there are, and lets shards know of them that do not.

        What a shard knows is read before that: a webhook that is created meanwhile is not taken for one that is
        gone.
        """
        known: dict[str, dict[str, int]] = {}
        for name in self._store.shard_names:
            try:
                known[name] = await self._store.watches(name)
            except ShardSilent as error:
                log.debug("a shard is not compared: %s", error)
        try:
            webhooks, silent = await self._store.all()
        except SnapURLError as error:
            log.debug("webhooks are not compared: %s", error.detail)
            return
        there = {each.webhook_id for each in webhooks}
        for name, versions in known.items():
            unknown = [each for each in webhooks if versions.get(each.webhook_id, 0) < each.version]
            gone = set() if silent else versions.keys() - there
            if unknown or gone:
                try:
                    await self._store.watch(name, unknown, gone)
                except ShardSilent as error:
                    log.debug("a shard is not told of webhooks: %s", error)
        self._take_lanes(webhooks, is_complete=not silent)

    def _take_lanes(self, webhooks: list[Webhook], *, is_complete: bool) -> None:
        there = {each.webhook_id: each for each in webhooks}
        for webhook_id, webhook in there.items():
            lane = self._lanes.setdefault(webhook_id, _Lane(webhook))
            if webhook.version != lane.webhook.version:
                lane.webhook, lane.failures, lane.rests_until = webhook, 0, 0.0
        if is_complete:
            for webhook_id in self._lanes.keys() - there.keys():
                del self._lanes[webhook_id]
