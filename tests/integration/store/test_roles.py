"""The rights of the roles that the migrations create: enough to work, and no more."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.model import LinkFields, LinkQuery, NewLink
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import grant_all, load_migrations, migrate_all
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.support.roles import connected, make_login, run_program


@pytest.fixture
async def as_service(ready: Settings) -> Settings:
    return await make_login(ready, "service_login", "snapurl_service")


@pytest.fixture
async def service(as_service: Settings) -> AsyncIterator[Any]:
    async with connected(as_service.shard_dsns[0].dsn) as connection:
        yield connection


@pytest.fixture
async def migrator(ready: Settings) -> AsyncIterator[Any]:
    found = await make_login(ready, "migrator_login", "snapurl_migrator")
    async with connected(found.shard_dsns[0].dsn) as connection:
        yield connection


async def test_service_role_is_enough_for_links(as_service: Settings) -> None:
    """The service role can create, read, list and delete links."""
    store = await Store.open(as_service)
    try:
        new = NewLink("abc", LinkFields("https://example.org/"), "me", uuid.uuid4())
        await store.links.create(new)
        assert [link.code for link in (await store.links.page(LinkQuery(), 5)).links] == ["abc"]
        await store.links.delete("abc", if_match=None, owner="me", token=uuid.uuid4())
        found = await store.links.get("abc")
        assert found is not None and found.deleted_at is not None
        assert await store.links.purge_idempotency_records(10) == 0
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
        "SELECT handoff_end_v1(1)",
        "SELECT grant_roles_v1()",
    ],
)
async def test_service_role_is_refused(service: Any, statement: str) -> None:
    """The service role cannot change slots, rows or the schema, except through the fence."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)


async def test_the_callers_search_path_does_not_redirect_the_functions(service: Any) -> None:
    """A caller with tables of the same names earlier in its search_path still writes to the owner's tables."""
    await service.execute(
        "CREATE TEMPORARY TABLE slots AS SELECT slot, 'owned' AS state FROM public.slots WHERE false"
    )
    await service.execute("CREATE TEMPORARY TABLE links (LIKE public.links)")
    slot = await service.fetchval("SELECT min(slot) FROM public.slots")
    await service.execute("SET search_path = pg_temp, public")
    outcome = await service.fetchval(
        "SELECT outcome FROM link_create_v1($1, 'x', 'https://a.org/', NULL, '{}', 302::smallint, NULL, '', $2)",
        slot,
        uuid.uuid4(),
    )
    assert outcome == "ok"
    assert await service.fetchval("SELECT count(*) FROM public.links") == 1
    assert await service.fetchval("SELECT count(*) FROM pg_temp.links") == 0


async def test_migrator_role_is_enough_for_steps(migrator: Any) -> None:
    """The migrator role can let a slot leave its shard and give it back."""
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
        "UPDATE topology SET document = '{}'",
        "DELETE FROM audit",
        "TRUNCATE links",
        "SELECT grant_roles_v1()",
    ],
)
async def test_migrator_role_is_refused(migrator: Any, statement: str) -> None:
    """The migrator role cannot change the schema, the identity of a shard, or the history."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrator.execute(statement)


async def test_every_function_that_writes_for_clients_sets_its_search_path(ready: Settings) -> None:
    """Each function that runs as the owner sets its search_path, so objects of its caller cannot shadow others."""
    async with connected(ready.shard_dsns[0].dsn) as owner:
        found = await owner.fetch("SELECT proname, prosecdef, proconfig FROM pg_proc WHERE prosecdef")
    assert {row["proname"] for row in found} >= {
        "link_create_v1",
        "link_create_many_v1",
        "link_change_v1",
        "link_create_v2",
        "link_create_many_v2",
        "link_change_v2",
        "link_use_v1",
        "link_restore_v2",
        "link_import_v1",
        "clicks_apply_v4",
        "key_add_v1",
        "key_add_v2",
        "key_used_v1",
        "account_add_v1",
        "account_rename_v1",
        "link_transfer_v1",
        "link_transfer_all_v1",
        "clicks_apply_v5",
        "webhook_add_v1",
        "webhook_change_v1",
        "webhook_watch_v1",
        "webhook_claim_v1",
        "webhook_settle_v1",
        "webhook_replay_v1",
        "webhook_replay_dead_v1",
        "webhook_release_v1",
        "webhook_purge_v1",
        "webhook_notify_expired_v1",
        "webhook_test_v1",
    }
    harmless = {f"enable_{way}=off" for way in ("seqscan", "hashjoin", "mergejoin")}
    harmless.add("plan_cache_mode=force_generic_plan")
    assert all(set(row["proconfig"]) - harmless == {"search_path=public, pg_temp"} for row in found)


# -- a user without rights -----------------------------------------------------------------------------------------


async def test_a_shard_that_revokes_a_right_is_missing_until_it_grants_it_again(
    as_service: Settings, ready: Settings, new_link: NewLinkMaker
) -> None:
    """If a right is revoked, a running service lists without that shard, and recovers once it is granted."""
    store = await Store.open(as_service)
    try:
        codes = [f"c{n}" for n in range(20)]
        await store.links.create_many([new_link(code) for code in codes])
        async with connected(ready.shard_dsns[0].dsn) as owner:
            await owner.execute("REVOKE SELECT ON links FROM snapurl_service")
            assert (await store.links.page(LinkQuery(), 50)).silent == (ready.shard_dsns[0].name,)
            await owner.execute("GRANT SELECT ON links TO snapurl_service")
        assert len((await store.links.page(LinkQuery(), 50)).links) == 20
    finally:
        await store.shards.close()


async def test_a_start_that_may_not_migrate_names_the_migrations(
    as_service: Settings, ready: Settings
) -> None:
    """A start as the service role that would have to migrate names the migrations and who may apply them."""
    newest = load_migrations()[-1]
    async with connected(ready.shard_dsns[0].dsn) as owner:
        await owner.execute("DELETE FROM schema_migrations WHERE version = $1", newest.version)
    with pytest.raises(ConfigError) as refused:
        await migrate_all(as_service)
    assert f"{newest.version:04d}_{newest.name}" in refused.value.detail
    assert "run `snapurl migrate` as the owner of its tables" in refused.value.detail


# -- an owner that is no superuser ---------------------------------------------------------------------------------


@pytest.fixture
async def owned(settings: Settings) -> Settings:
    """Settings with empty databases, as their owner, a user with no other rights on the servers."""
    found = await make_login(settings, "plain_owner")
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            await superuser.execute(f"ALTER DATABASE {item.dsn.rpartition('/')[2]} OWNER TO plain_owner")
    return found


async def test_roles_that_the_owner_may_not_create(settings: Settings, owned: Settings) -> None:
    """The tables are created without the roles; `snapurl migrate` says what is missing, and later grants rights."""
    await migrate_all(settings.model_copy())  # by the superuser first, so that both roles are there
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            await superuser.execute(
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION plain_owner"
            )
            await superuser.execute("ALTER ROLE snapurl_service RENAME TO hidden_service")
    try:
        said = await run_program(owned, "snapurl", "migrate")
        assert said.code == 0, said.text
        assert "db0: 0009_roles" in said.text
        assert "db0: role snapurl_service is missing and this user may not create it" in said.text
        assert "have a superuser create it" in said.text and "Traceback" not in said.text
        await ensure_cluster(owned)
    finally:
        for item in settings.shard_dsns:
            async with connected(item.dsn) as superuser:
                await superuser.execute("ALTER ROLE hidden_service RENAME TO snapurl_service")
    assert (await run_program(owned, "snapurl", "migrate")).text == "Every shard is up to date.\n"
    assert await grant_all(owned) == []
    found = await make_login(settings, "service_login", "snapurl_service")
    store = await Store.open(found)
    await store.links.create(NewLink("abc", LinkFields("https://example.org/"), "me", uuid.uuid4()))
    await store.shards.close()
