"""Accounts and keys in the shards: what a repeat of a lost call finds, and how often a use is written."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.model import Account, ApiKey, Right
from tests.integration.store.conftest import NewLinkMaker, Store

AT = datetime(2030, 1, 1, tzinfo=UTC)
ACCOUNT = Account("acc_0123456789", "team", AT, "")
KEY = ApiKey("0123456789", "key", b"hash", frozenset({Right.READ}), "", AT, None, "acc_0123456789")


async def test_a_repeat_finds_what_the_lost_call_has_made(store: Store) -> None:
    """A second call with the same account or key succeeds and changes nothing; another of that id is refused."""
    assert await store.accounts.add(ACCOUNT) and await store.accounts.add(ACCOUNT)
    assert not await store.accounts.add(replace(ACCOUNT, name="other"))
    assert await store.accounts.find(ACCOUNT.account_id) == ACCOUNT
    assert await store.keys.add(KEY) and await store.keys.add(KEY)
    assert not await store.keys.add(replace(KEY, secret_hash=b"other"))
    assert await store.keys.find(KEY.key_id) == KEY


async def test_a_use_is_written_once_an_hour(store: Store, direct: dict[str, Any]) -> None:
    """Uses within an hour of a written one change nothing; later ones do. A use of no key is no error."""
    slot = slot_of(KEY.key_id)
    shard = direct[store.shards.map.owner(slot)]
    await store.keys.note_use(KEY.key_id)
    await store.keys.add(KEY)

    async def noted() -> datetime:
        await store.keys.note_use(KEY.key_id)
        found = await store.keys.find(KEY.key_id)
        assert found is not None and found.used_at is not None
        return found.used_at

    first = await noted()
    assert await noted() == first
    await shard.execute("UPDATE api_keys SET used_at = used_at - interval '1 hour 1 minute'")
    assert await noted() > first


async def test_a_transfer_is_bounded_and_goes_on_where_it_ended(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call gives a bounded number of links per shard, deleted ones too; those in a slot that refuses writes
    stay until it accepts them. Each link gets its next version, and keeps the key that made it."""
    monkeypatch.setattr("snapurl.store.accounts.TRANSFER_LINKS_MAX", 4)
    codes = [f"t{n}" for n in range(60)]
    await store.links.create_many([new_link(code, owner="0123456789") for code in codes])
    await store.links.create(new_link("other", owner="acc_other"))
    await store.links.delete("t0", if_match=None, owner=None, token=uuid.uuid4())
    held, shard = slot_of("t1"), direct[store.shards.map.owner(slot_of("t1"))]
    await shard.execute("UPDATE slots SET state = 'frozen', peer = 'db9' WHERE slot = $1", held)
    assert await store.accounts.count_links("0123456789") == 60

    async def transfer() -> tuple[int, bool]:
        given, complete, silent = await store.accounts.transfer_links("0123456789", "acc_new", "admin")
        assert given <= 4 * len(direct) and silent == ()
        return given, complete

    given = 0
    while some := (await transfer())[0]:
        given += some
    assert given == 60 - sum(slot_of(code) == held for code in codes)
    assert await transfer() == (0, False)
    await shard.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", held)
    assert await transfer() == (60 - given, True)
    for code in codes:
        link = await store.links.get(code)
        assert link is not None and link.owner == "acc_new"
        assert link.version == (3 if code == "t0" else 2)
        # X assert link.changed_by == "admin"
    other = await store.links.get("other")
    assert other is not None and other.version == 1


async def test_a_key_of_an_older_release_has_an_account_of_its_own(
    store: Store, direct: dict[str, Any]
) -> None:
    """A key that the function of the older release makes belongs to an account with the id of the key."""
    slot = slot_of(KEY.key_id)
    shard = direct[store.shards.map.owner(slot)]
    outcome = await shard.fetchval(
        "SELECT outcome FROM key_add_v1($1, $2, 'old', 'hash', '{read}', '', $3)", slot, KEY.key_id, AT
    )
    assert outcome == "ok"
    found = await store.keys.find(KEY.key_id)
    assert found is not None and found.account == KEY.key_id
