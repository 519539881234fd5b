"""The sender of webhooks on real shards: what happens to receivers, to itself, and to slots meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.messages import ALL_ACCOUNTS, CHOICE, USUAL, MessageState
from snapurl.model import ClickRow, LinkPatch
from snapurl.store.webhooks import WebhookStore
from snapurl.tasks import cancel_and_wait
from snapurl.webhooks import delivery, sender, upkeep
from snapurl.webhooks.sender import WEBHOOK_DELIVERIES_MAX, make_sender
from snapurl.webhooks.service import WebhookService
from tests.integration.http.service import environ_of
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.tools.conftest import add_fifth, settle
from tests.support.programs import start
from tests.support.receiver import OK, Received, receiving
from tests.support.waits import unless_hung, until

SettingsMaker = Callable[..., Settings]

LINKS = 30
CHANGES = 3
FEW = 8  # messages, more than a webhook has deliveries at once


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMPARE_S", "POLL_S", "STANDBY_S"):
        monkeypatch.setattr(sender, name, 0.02)
    monkeypatch.setattr(sender, "REST_S_MAX", 0.02)
    monkeypatch.setattr(delivery, "DELAYS_S", (0.02, 0.02))


@asynccontextmanager
async def sending(store: Store) -> AsyncIterator[WebhookService]:
    """Runs a sender, and stops it at once in the midst of what it does."""
    settings = store.settings.model_copy(update={"webhook_networks": "127.0.0.0/8"})
    webhooks = WebhookStore(store.shards, store.router)
    running = make_sender(settings, webhooks, lambda: True, asyncio.get_running_loop().time)
    task = asyncio.create_task(running.run())
    try:
        yield WebhookService(webhooks)
    finally:
        assert not task.done(), task
        await cancel_and_wait(task)


async def change(store: Store, code: str, times: int) -> None:
    for number in range(times):
        patch = LinkPatch(url=f"https://example.org/{number}")
        await store.links.change(code, patch, if_match=None, owner=None, token=uuid.uuid4(), by="")


async def test_nothing_is_missing_while_slots_move_and_senders_die(
    store: Store, new_link: NewLinkMaker, ready: Settings, five: Settings, fifth: str
) -> None:
    """While slots move to a new shard, which gets to know of the webhook with them, and senders end in the midst of
    deliveries, a receiver is told of each change of each link; the first time of each, in their order."""
    codes = [f"link{number}" for number in range(LINKS)]
    held: list[Received] = []

    def answer(received: Received) -> bytes | None:
        """Leaves each tenth request without an answer until its sender has ended."""
        if len(receiver.received) % 10 == 0:
            held.append(received)
            return None
        return OK

    async with receiving() as receiver:
        receiver.answer = answer
        async with sending(store) as webhooks:
            await webhooks.create(ALL_ACCOUNTS, receiver.url, USUAL, "", "")
            await store.links.create_many([new_link(code) for code in codes])
            fleet = await add_fifth(ready, five, fifth, weight=0.2)
            moving = asyncio.create_task(settle(five))
            await until(lambda: held)
        changing = asyncio.gather(*(change(store, code, CHANGES) for code in codes))
        async with sending(store):
            await until(lambda: len(held) >= 3)
        await moving
        await changing
        await fleet.close()
        receiver.answer = lambda received: OK
        async with sending(store):
            everything = [*range(1, CHANGES + 2)]
            await until(lambda: all(versions_of(receiver.received)[code] == everything for code in codes),
                        lambda: versions_of(receiver.received))  # fmt: skip
            moved = await store.shards.pool("db4").fetch("SELECT count(*) AS n FROM webhook_messages")
            assert moved[0]["n"] > 0


def versions_of(received: list[Received]) -> dict[str, list[int]]:
    """Returns of each link which versions were told, each message the first time."""
    found: dict[str, list[int]] = defaultdict(list)
    told = set()
    for each in received:
        if each.message_id not in told:
            told.add(each.message_id)
            found[each.code].append(each.told["data"]["link"]["version"])
    return found


async def test_a_receiver_that_fails_delays_nobody_else(store: Store, new_link: NewLinkMaker) -> None:
    """While one receiver answers nothing and one fails, a third is told of everything. What was given up is in the
    log, and can be sent again; a receiver that wants no more is left alone."""
    failing = {"answer": b"HTTP/1.1 500 Oh\r\n\r\n"}
    async with receiving() as silent, receiving() as bad, receiving() as good, sending(store) as webhooks:
        silent.answer = lambda received: None
        bad.answer = lambda received: failing["answer"]
        made = [
            (await webhooks.create(ALL_ACCOUNTS, each.url, USUAL, "", "")).webhook.webhook_id
            for each in (silent, bad, good)
        ]
        codes = [f"link{number}" for number in range(FEW)]
        await store.links.create_many([new_link(code) for code in codes])
        await until(lambda: len(good.received) == FEW)
        assert len(silent.received) == WEBHOOK_DELIVERIES_MAX

        async def count(state: MessageState) -> int:
            return len((await webhooks.deliveries(made[1], None, 200, None, state))[0])

        async def are_dead() -> bool:
            return await count(MessageState.DEAD) == FEW

        await until(are_dead)
        (one, *_), _ = await webhooks.deliveries(made[1], None, 1)
        assert (one.attempts, one.status, one.answer) == (3, 500, "the receiver answers 500")
        failing["answer"] = OK
        assert await webhooks.replay_dead(made[1], None) == (FEW, True, ())

        async def are_sent() -> bool:
            return await count(MessageState.SENT) == FEW

        await until(are_sent)
        failing["answer"] = b"HTTP/1.1 410 Gone\r\n\r\n"
        await webhooks.replay(made[1], None, one.message_id)

        async def is_disabled() -> bool:
            return not (await webhooks.get(made[1], None)).is_enabled

        await until(is_disabled)
        assert (await webhooks.get(made[1], None)).disabled_why == "the receiver wants no more messages"


async def test_a_killed_process_leaves_nothing_unsent(
    store: Store, new_link: NewLinkMaker, make_settings: SettingsMaker, redis_url: str
) -> None:
    """A click consumer that is killed in the midst of a delivery leaves the message to the next one, which sends it
    under the same id, and after it the clicks that it has gathered."""
    settings = make_settings(webhook_networks="127.0.0.0/8")
    environ = environ_of(settings, SNAPURL_WEBHOOK_NETWORKS="127.0.0.0/8")
    async with receiving() as receiver:
        receiver.answer = lambda received: None
        service = WebhookService(WebhookStore(store.shards, store.router))
        await service.create(ALL_ACCOUNTS, receiver.url, CHOICE, "", "")
        first = await start("snapurl.clicks", env=environ)
        await store.links.create(new_link("abc", owner="acc_0000000001"))
        await until(lambda: receiver.received)
        first.kill()
        await unless_hung(first.wait())
        receiver.answer = lambda received: OK
        slot = slot_of("abc")
        for entry in (1, 2):
            rows = [ClickRow(slot, entry, "abc", datetime.now(UTC).date(), 2, bots=1)]
            await store.apply_clicks("test", {slot: rows})
        # As if their minute, or both, had passed.
        shard = await asyncpg.connect(
            next(item.dsn for item in settings.shard_dsns if item.name == store.shards.map.owner(slot))
        )
        await shard.execute("UPDATE webhook_messages SET due_at = now() WHERE kind = 'link.clicks'")
        await shard.close()
        second = await start("snapurl.clicks", env=environ)
        await until(lambda: {"link.created", "link.clicks"} <= {each.kind for each in receiver.received[1:]})
        second.terminate()
        await unless_hung(second.wait())
        assert receiver.received[1].message_id == receiver.received[0].message_id
        gathered = {each.message_id: each for each in receiver.received if each.kind == "link.clicks"}
        counts = [(each.told["data"]["clicks"], each.told["data"]["bots"]) for each in gathered.values()]
        assert tuple(map(sum, zip(*counts, strict=True))) == (4, 2)


async def test_messages_are_bounded(
    store: Store,
    new_link: NewLinkMaker,
    direct: dict[str, asyncpg.Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too many messages that wait disable a webhook. Of those that were sent the newest are kept, of a deleted
    webhook none. A restore of links sends nothing."""
    monkeypatch.setattr(upkeep, "COUNT_EVERY_S", 0.02)
    monkeypatch.setattr(upkeep, "PURGE_EVERY_S", 0.02)
    monkeypatch.setattr(upkeep, "SENT_KEPT", 1)
    codes = [f"link{number}" for number in range(LINKS)]

    async def messages(webhook_id: str) -> int:
        found = [
            await each.fetchval("SELECT count(*) FROM webhook_messages WHERE webhook_id = $1", webhook_id)
            for each in direct.values()
        ]
        return sum(found)

    async with receiving() as silent, receiving() as good, sending(store) as webhooks:
        silent.answer = lambda received: None
        full, kept = [
            (await webhooks.create(ALL_ACCOUNTS, each.url, USUAL, "", "")).webhook.webhook_id
            for each in (silent, good)
        ]
        await store.links.create_many([new_link(code) for code in codes])

        async def is_disabled() -> bool:
            return (await webhooks.get(full, None)).disabled_why == upkeep.FULL

        async def is_purged() -> bool:
            return len(good.received) == LINKS and await messages(kept) <= 2 * len(direct)

        await until(is_purged)
        monkeypatch.setattr(upkeep, "WAITING_MAX", 1)
        await until(is_disabled)
        assert await messages(full) == LINKS
        await webhooks.delete(full, None, "")

        async def is_gone() -> bool:
            return await messages(full) == 0

        await until(is_gone)
        for connection in direct.values():
            async with connection.transaction():
                await connection.execute("SELECT set_config('snapurl.restores', 'on', true)")
                await connection.execute(
                    "INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token) "
                    "SELECT min(slot), 'restored', 1, 'https://example.org/', '{}', 302, now(), '', "
                    "gen_random_uuid() FROM slots WHERE state = 'owned'"
                )
            assert not await connection.fetchval(
                "SELECT count(*) FROM webhook_messages WHERE code = 'restored'"
            )
