"""The rights of the roles that the migrations make: enough to work, and no more."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from pydantic import SecretStr

from snapurl.config import Settings
from snapurl.ports import NewLink
from tests.integration.store.conftest import Store

PASSWORD = "of-the-tests"


async def settings_as(role: str, ready: Settings) -> Settings:
    """`ready`, with a login user in every DSN whose only rights are those of `role`."""
    listed = []
    for item in ready.shard_dsns:
        owner = await asyncpg.connect(item.dsn)
        try:
            if not await owner.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", f"{role}_login"):
                await owner.execute(f"CREATE ROLE {role}_login LOGIN PASSWORD '{PASSWORD}' IN ROLE {role}")
        finally:
            await owner.close()
        parts = urlsplit(item.dsn)
        netloc = f"{role}_login:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"
        listed.append(f"{item.name}={urlunsplit(parts._replace(netloc=netloc))}")
    return ready.model_copy(update={"shards": SecretStr(" ".join(listed))})


@pytest.fixture
async def as_service(ready: Settings) -> Settings:
    return await settings_as("snapurl_service", ready)


@pytest.fixture
async def service(as_service: Settings) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(as_service.shard_dsns[0].dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def migrator(ready: Settings) -> AsyncIterator[Any]:
    found = await settings_as("snapurl_migrator", ready)
    connection = await asyncpg.connect(found.shard_dsns[0].dsn)
    yield connection
    await connection.close()


async def test_service_role_is_enough_for_links(as_service: Settings) -> None:
    """As the service role a store creates, reads, lists and deletes."""
    store = await Store.open(as_service)
    try:
        new = NewLink("abc", "https://example.org/", None, (), 302, None, "me", uuid.uuid4())
        await store.links.create(new)
        assert [link.code for link in await store.links.page(5, None, None)] == ["abc"]
        await store.links.delete("abc", if_match=None, owner="me", token=uuid.uuid4())
        found = await store.links.get("abc")
        assert found is not None and found.deleted_at is not None
    finally:
        await store.shards.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE slots SET state = 'owned'",
        "DELETE FROM links",
        "INSERT INTO topology (version, document) VALUES (99, '{}')",
        "DROP TABLE links",
        "CREATE TABLE mine ()",
        "SELECT handoff_leave_v1('{1}', '{1}', 'db1', gen_random_uuid(), 10)",
        "SELECT grant_roles_v1()",
    ],
)
async def test_service_role_is_refused(service: Any, statement: str) -> None:
    """The service role changes neither slots nor rows nor the schema, except through the fence."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)


async def test_migrator_role_carries_out_steps(migrator: Any) -> None:
    """As the migrator role a slot leaves its shard and is given back."""
    slot = await migrator.fetchval("SELECT min(slot) FROM slots")
    token = uuid.uuid4()
    await migrator.execute("SELECT handoff_leave_v1($1, '{1}', 'db1', $2, 100)", [slot], token)
    assert await migrator.fetchval("SELECT state FROM slots WHERE slot = $1", slot) == "leaving"
    await migrator.execute("SELECT handoff_restore_v1($1, '{1}', 'db1', $2)", [slot], token)
    assert await migrator.fetchval("SELECT state FROM slots WHERE slot = $1", slot) == "owned"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE links",
        "DELETE FROM schema_migrations",
        "UPDATE cluster SET shard = 'db9'",
        "TRUNCATE links",
    ],
)
async def test_migrator_role_is_refused(migrator: Any, statement: str) -> None:
    """The migrator role changes neither the schema nor the identity of a shard."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrator.execute(statement)
