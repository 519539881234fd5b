"""The history check on stores that are broken on purpose: it must find the fault of each."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from snapurl.cache.reader import LinkCache
from snapurl.config import Settings
from snapurl.errors import Gone, Invalid, NotFound, VersionMismatch
from snapurl.model import Link, LinkFields, LinkPatch, NewLink, Taken
from snapurl.redis_client import redis_client
from snapurl.renames import LinkRenames
from tests.drills.history.checker import Entry, Fields, Kind, Outcome, check_history
from tests.drills.history.clients import Answer
from tests.drills.history.recorder import Recorder
from tests.integration.store.conftest import Store
from tests.support.waits import until

CLIENTS = 8
OPERATIONS = 800
PASSWORD_SHARE = 0.2  # of the changes: here nothing hashes one
ACCOUNT = "acc_made"

BROKEN = {
    "a restore does not look at the version": (
        "link_restore_v2", "WHEN link.version <> p_if_match THEN 'mismatch'", "",
    ),
    "a restore brings an old title back": (
        "link_restore_v2", "deleted_at = NULL", "deleted_at = NULL, title = 'title 1'",
    ),
    "a delete is acknowledged and does nothing": (
        "link_change_v2", "CASE WHEN p_delete THEN clock_timestamp() END", "NULL",
    ),
    "a deleted link can be changed, and is there again": (
        "link_change_verdict_v1", "WHEN (l).deleted_at IS NOT NULL THEN 'gone'", "",
    ),
    "a change resets an option that it does not name": (
        "link_change_v2", "THEN p_max_clicks ELSE l.max_clicks END", "THEN p_max_clicks END",
    ),
    "a change removes the password": (
        "link_change_v2", "THEN p_password_hash ELSE l.password_hash END", "THEN p_password_hash END",
    ),
    "some transfers do nothing": (
        "link_transfer_v1", "owner = p_account", "owner = CASE WHEN l.version = 2 THEN l.owner ELSE p_account END",
    ),
    "a rename does not mark the old link": ("link_rename_v1", "renamed_to = p_new", "renamed_to = NULL"),
    "a rename changes the title of the old link": (
        "link_rename_v1", "renamed_to = p_new", "renamed_to = p_new, title = p_new",
    ),
    "a history lacks the restores": (
        "link_changed_v1", "RETURN NEW", "DELETE FROM link_history WHERE kind = 'restore'; RETURN NEW",
    ),
}  # fmt: skip


class StoreClient:
    """A client of the store, without HTTP."""

    def __init__(self, store: Store, cache: LinkCache) -> None:
        self._links = store.links
        self._renames = LinkRenames(store.links, cache)

    async def create(self, code: str, fields: Fields) -> Answer:
        new = NewLink(code, LinkFields("https://example.org/", **_columns(fields)), ACCOUNT, uuid.uuid4())
        made = await self._links.create(new)
        return Answer(Outcome.TAKEN) if isinstance(made, Taken) else _shown(made)

    async def change(self, code: str, fields: Fields, if_match: int | None) -> Answer:
        patch = LinkPatch(**_columns(fields))
        return await _answer(
            self._links.change(code, patch, if_match=if_match, owner=None, token=uuid.uuid4())
        )

    async def delete(self, code: str, if_match: int | None) -> Answer:
        return await _answer(self._links.delete(code, if_match=if_match, owner=None, token=uuid.uuid4()))

    async def restore(self, code: str, if_match: int) -> Answer:
        return await _answer(self._links.restore(code, if_match=if_match, owner=None, token=uuid.uuid4()))

    async def transfer(self, code: str, account: str, if_match: int | None) -> Answer:
        return await _answer(
            self._links.transfer(code, account, if_match=if_match, by="", token=uuid.uuid4())
        )

    async def rename(self, code: str, new: str) -> Answer:
        return await _answer(
            self._renames.rename(code, new, gives_up=False, if_match=None, owner=None, by="")
        )

    async def read(self, code: str) -> Answer:
        link = await self._links.get(code)
        if link is None:
            return Answer(Outcome.MISSING)
        return _shown(link) if link.deleted_at is None else Answer(Outcome.GONE)

    async def history(self, code: str) -> Answer:
        found = await self._links.history(code)
        if found is None:
            return Answer(Outcome.MISSING)
        log = tuple(
            Entry(
                item.version, Kind(item.kind), _names({name: new for name, (_, new) in item.fields.items()})
            )
            for item in found.changes
        )
        return Answer(Outcome.DONE, found.link.version, log=log)


def _columns(fields: Fields) -> dict[str, Any]:
    columns: dict[str, Any] = dict(fields)
    if "tags" in columns:
        columns["tags"] = tuple(columns["tags"])
    if "has_password" in columns:
        columns["password_hash"] = "hash" if columns.pop("has_password") else None
    return columns


def _names(columns: dict[str, Any]) -> Fields:
    """Returns the columns that a history names by the names of the API."""
    if "owner" in columns:
        columns["account"] = columns.pop("owner")
    if "password" in columns:
        columns["has_password"] = columns.pop("password") == "set"
    return columns


def _shown(link: Link) -> Answer:
    if link.deleted_at is not None:
        return Answer(Outcome.DONE, link.version)
    shown = {
        "title": link.title, "enabled": link.enabled, "max_clicks": link.max_clicks, "tags": list(link.tags),
        "has_password": link.password_hash is not None, "account": link.owner,
        "renamed_to": link.renamed_to,
    }  # fmt: skip
    return Answer(Outcome.DONE, link.version, shown)


async def _answer(call: Awaitable[Link]) -> Answer:
    try:
        return _shown(await call)
    except NotFound:
        return Answer(Outcome.MISSING)
    except Gone:
        return Answer(Outcome.GONE)
    except VersionMismatch:
        return Answer(Outcome.MISMATCH)
    except Invalid:
        return Answer(Outcome.REFUSED)


@pytest.fixture
async def clients(ready: Settings, store: Store) -> AsyncIterator[list[StoreClient]]:
    redis = redis_client(ready)
    cache = LinkCache(ready, "test", store.links.find, redis, time.monotonic)
    yield [StoreClient(store, cache) for _ in range(CLIENTS)]
    await redis.aclose()


async def errors_of(clients: list[StoreClient], rounds: int) -> dict[str, str]:
    """Performs up to `rounds` of OPERATIONS, and returns what the check says as soon as it says something."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    codes = [f"k{number}" for number in range(1_000)]
    recorder = Recorder(
        codes, random.Random(seed), ACCOUNT, ("acc_one", "acc_two"), password_share=PASSWORD_SHARE
    )
    for _ in range(rounds):
        stop, begun = asyncio.Event(), len(recorder.history)

        def is_over(begun: int = begun) -> bool:
            return len(recorder.history) >= begun + OPERATIONS

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(recorder.work(client, stop))
            await until(is_over)
            stop.set()
        await recorder.read_histories(clients)
        if wrong := check_history(recorder.history):
            return wrong
    return {}


async def test_a_sound_store_passes(clients: list[StoreClient]) -> None:
    """The check accepts what the store answers, with every kind of operation in the mix."""
    assert await errors_of(clients, rounds=2) == {}


@pytest.mark.parametrize(("function", "text", "instead"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_store_is_caught(
    clients: list[StoreClient], direct: dict[str, Any], function: str, text: str, instead: str
) -> None:
    """The check finds each of these faults of a store."""
    for shard in direct.values():
        source = await shard.fetchval("SELECT pg_get_functiondef($1::regproc)", function)
        assert source.count(text) == 1
        await shard.execute(source.replace(text, instead))
    wrong = await errors_of(clients, rounds=20)
    print("\n".join(wrong.values()))
    assert wrong
