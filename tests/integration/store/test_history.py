"""The history of links: what each write leaves in it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from snapurl.errors import VersionMismatch
from snapurl.history import CHANGES_MAX, VALUE_CHARS_MAX, LinkHistory
from snapurl.model import LINK_FIELDS, Link, LinkPatch
from tests.integration.store.conftest import NewLinkMaker, Store


async def history(store: Store, code: str) -> LinkHistory:
    found = await store.links.history(code)
    assert found is not None
    return found


async def change(store: Store, code: str, by: str = "key", **values: Any) -> Link:
    return await store.links.change(
        code, LinkPatch(**values), if_match=None, owner=None, token=uuid.uuid4(), by=by
    )


async def test_each_kind_of_write_leaves_who_did_what(store: Store, new_link: NewLinkMaker) -> None:
    """A change, a delete, a restore and a transfer leave one entry each: key, time, kind, old and new values."""
    code = "story"
    await store.links.create(new_link(code, owner="acc_1", title="old", tags=("a",)))
    until_at = datetime(2099, 1, 31, 12, tzinfo=UTC)
    changed = await change(store, code, "k1", title=None, tags=("a", "b"), expires_at=until_at, enabled=False)
    await store.links.delete(code, if_match=2, owner="acc_1", token=uuid.uuid4(), by="k2")
    await store.links.restore(code, if_match=None, owner="acc_1", token=uuid.uuid4(), by="k3")
    await store.links.transfer(code, "acc_2", if_match=4, by="k4", token=uuid.uuid4())
    await store.accounts.transfer_links("acc_2", "acc_3", "k5")

    found = await history(store, code)
    assert [(item.version, item.kind, item.changed_by) for item in found.changes] == [
        (2, "change", "k1"), (3, "delete", "k2"), (4, "restore", "k3"), (5, "transfer", "k4"),
        (6, "transfer", "k5"),
    ]  # fmt: skip
    first, *others = found.changes
    assert first.changed_at == changed.changed_at
    assert first.fields == {
        "title": ("old", None),
        "tags": (["a"], ["a", "b"]),
        "expires_at": (None, "2099-01-31T12:00:00+00:00"),
        "enabled": (True, False),
    }
    owners: list[dict[str, tuple[Any, Any]]] = [{"owner": ("acc_1", "acc_2")}, {"owner": ("acc_2", "acc_3")}]
    assert [item.fields for item in others] == [{}, {}, *owners]
    assert (found.dropped, found.link.version) == (0, 6)


async def test_a_create_writes_no_history(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A create, alone or in bulk, costs what it did: it writes no row of history, and no trigger waits for it."""
    await store.links.create(new_link("alone"))
    await store.links.create_many([new_link(f"many{number}") for number in range(20)])
    for shard in direct.values():
        assert await shard.fetchval("SELECT count(*) FROM link_history") == 0
        triggers = await shard.fetch(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'links'::regclass"
        )
        assert not [row[0] for row in triggers if "INSERT" in row[0]]
    assert (await history(store, "alone")).changes == []


async def test_a_repeated_or_refused_change_writes_no_row(store: Store, new_link: NewLinkMaker) -> None:
    """However often a change is repeated with its token, the history has it once; a refused one is not in it."""
    await store.links.create(new_link("once"))
    token = uuid.uuid4()
    for _ in range(3):
        await store.links.change("once", LinkPatch(title="t"), if_match=1, owner=None, token=token, by="k")
    with pytest.raises(VersionMismatch):
        await store.links.change("once", LinkPatch(title="x"), if_match=1, owner=None, token=uuid.uuid4())
    assert [item.version for item in (await history(store, "once")).changes] == [2]
    await store.links.restore("once", if_match=None, owner=None, token=uuid.uuid4())  # is not deleted
    assert len((await history(store, "once")).changes) == 1


async def test_no_hash_of_a_password_is_in_a_history(store: Store, new_link: NewLinkMaker) -> None:
    """A history says that a password was set, changed or removed, and nothing else of it."""
    await store.links.create(new_link("locked"))
    for hashed in ("$argon2id$one", "$argon2id$two", None):
        await change(store, "locked", password_hash=hashed)
    said = [item.fields for item in (await history(store, "locked")).changes]
    assert said == [{"password": (None, word)} for word in ("set", "changed", "removed")]


async def test_a_history_is_bounded(store: Store, direct: dict[str, Any], new_link: NewLinkMaker) -> None:
    """A link keeps its newest changes and says how many were dropped; a long value is cut."""
    await store.links.create(new_link("busy"))
    for number in range(CHANGES_MAX + 5):
        await change(store, "busy", title=str(number))
    found = await history(store, "busy")
    assert [item.fields["title"][1] for item in found.changes] == [
        str(number) for number in range(5, CHANGES_MAX + 5)
    ]
    assert found.dropped == 5
    assert (
        sum([await shard.fetchval("SELECT count(*) FROM link_history") for shard in direct.values()]) == 100
    )
    long = "https://example.org/" + "ü" * 5_000
    await change(store, "busy", url=long)
    _, new = (await history(store, "busy")).changes[-1].fields["url"]
    assert len(new) == VALUE_CHARS_MAX
    assert new == long[: VALUE_CHARS_MAX - 1] + "…"


async def test_a_history_has_every_field_that_a_change_can_set(store: Store, new_link: NewLinkMaker) -> None:
    """No field of a link can be changed without a trace, also none that is added later."""
    values: dict[str, Any] = {
        "url": "https://example.org/new", "title": "t", "tags": ("t",), "redirect_status": 308, "enabled": False,
        "expires_at": datetime(2099, 1, 1, tzinfo=UTC), "starts_at": datetime(2098, 1, 1, tzinfo=UTC),
        "expired_url": "https://example.org/over", "note": "n", "forward_query": True, "forward_path": True,
        "max_clicks": 7, "password_hash": "$argon2id$", "rules": "[]",
    }  # fmt: skip
    assert values.keys() == set(LINK_FIELDS)
    await store.links.create(new_link("all"))
    await change(store, "all", **values)
    said = (await history(store, "all")).changes[0].fields
    assert said.keys() == {*LINK_FIELDS} - {"password_hash"} | {"password"}
    assert "argon2id" not in str(said)
