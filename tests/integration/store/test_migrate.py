"""Migrations on real shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.run.serve import prepare
from snapurl.store.cluster.migrate import Migration, load_migrations, migrate_all
from tests.support.roles import connected, run_program


async def record(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_every_shard_gets_every_migration_once(settings: Settings) -> None:
    """Eight concurrent processes apply each migration to each shard exactly once."""
    lines = await asyncio.gather(*(migrate_all(settings) for _ in range(8)))
    applied = sorted(line for part in lines for line in part)
    expected = sorted(
        f"{item.name}: {migration.version:04d}_{migration.name}"
        for item in settings.shard_dsns
        for migration in load_migrations()
    )
    assert applied == expected
    assert await migrate_all(settings) == []


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 2", "0002_slots_and_fence has changed"),
        ("DELETE FROM schema_migrations WHERE version = 1", "never got migration 0001_cluster"),
        ("INSERT INTO schema_migrations VALUES (9000, 'later', 'x')", "run a newer SnapURL"),
    ],
)
async def test_a_record_that_disagrees_with_the_files_is_refused(
    settings: Settings, fresh_shards: dict[str, str], statement: str, message: str
) -> None:
    """A changed, missing or unknown old migration stops the start and names the shard or the migration."""
    await migrate_all(settings)
    await record(fresh_shards["db1"], statement)
    with pytest.raises(ConfigError, match=message):
        await migrate_all(settings)


# The migration record of a development version: fourteen migrations, with the checksum of the first.
DEVELOPMENT = """
CREATE TABLE schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO schema_migrations (version, name, checksum)
     SELECT n, 'some', CASE n WHEN 1 THEN '5dfcf716f925b91df9c9998b989de936a14d65e328e2ab3956a1ba6a8de4330b'
                              ELSE 'x' END FROM generate_series(1, 14) n
"""


async def test_data_of_a_development_version_is_refused_in_one_line(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """Start and `snapurl migrate` say that the data cannot be upgraded and what to do, and change nothing."""
    for dsn in fresh_shards.values():
        await record(dsn, DEVELOPMENT)
    with pytest.raises(ConfigError, match=r"development version before 0\.1\.0") as refused:
        await prepare(settings)
    said = await run_program(settings, "snapurl", "migrate")
    assert said.code == 2 and said.text.count("\n") == 1
    assert refused.value.detail in said.text and "move SNAPURL_HOME away" in said.text
    for dsn in fresh_shards.values():
        async with connected(dsn) as shard:
            assert await shard.fetchval("SELECT count(*) FROM schema_migrations") == 14
            assert await shard.fetchval("SELECT to_regclass('cluster')") is None


async def test_a_cluster_that_lacks_migrations_is_refused_in_one_line_too_if_a_start_may_not_apply_them(
    make_settings: Callable[..., Settings], fresh_shards: dict[str, str]
) -> None:
    """With SNAPURL_MIGRATE_ON_START off, a start on an older cluster names what is missing and the remedy. On one
    of a development version it says what to do, and on a newer one it goes on."""
    settings = make_settings(migrate_on_start=False)
    await migrate_all(settings)
    await prepare(settings)
    await record(fresh_shards["db1"], "INSERT INTO schema_migrations VALUES (9000, 'later', 'x')")
    await prepare(settings)
    newest = load_migrations()[-1]
    await record(fresh_shards["db1"], f"DELETE FROM schema_migrations WHERE version >= {newest.version}")
    with pytest.raises(ConfigError) as refused:
        await prepare(settings)
    lacks = f"shard db1 lacks the migrations {newest.version:04d}_{newest.name}: run `snapurl migrate`"
    assert refused.value.detail == lacks
    await record(fresh_shards["db1"], "DROP TABLE schema_migrations")
    await record(fresh_shards["db1"], DEVELOPMENT)
    with pytest.raises(ConfigError, match=r"development version before 0\.1\.0"):
        await prepare(settings)


async def test_a_migration_that_refuses_is_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that refuses to run, as a breaking one does during a hand-off, ends the start with its reason."""
    known = load_migrations()
    sql = "DO $$ BEGIN RAISE EXCEPTION 'slots are in hand-off:\nwait, see `snapurl-reshard status`'; END $$"
    refusing = Migration(len(known) + 1, "breaking", sql)
    monkeypatch.setattr("snapurl.store.cluster.migrate.load_migrations", lambda: [*known, refusing])
    with pytest.raises(ConfigError) as refused:
        await prepare(settings)
    assert "cannot be migrated now: slots are in hand-off: wait, see `snapurl-reshard" in refused.value.detail


async def test_a_sharded_table_carries_slot_and_xid(settings: Settings, fresh_shards: dict[str, str]) -> None:
    """Each table with a slot has the xid column that a catch-up needs, and a key that begins with the slot."""
    await migrate_all(settings)
    connection = await asyncpg.connect(fresh_shards["db0"])
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'slot' "
            "AND table_schema = 'public' AND table_name <> 'slots'"
        )
        assert {row["table_name"] for row in tables} == {
            "links",
            "click_days",
            "click_cursor",
            "click_group_months",
            "click_groups",
            "click_months",
            "click_totals",
            "imported_days",
            "link_shares",
            "link_uses",
            "link_history",
            "api_keys",
            "accounts",
            "intents",
            "webhooks",
            "webhook_messages",
        }
        for row in tables:
            column = await connection.fetchrow(
                "SELECT is_nullable, data_type FROM information_schema.columns "
                "WHERE table_name = $1 AND column_name = 'xid'",
                row["table_name"],
            )
            assert column is not None and tuple(column) == ("NO", "xid8")
            index = await connection.fetchval(
                "SELECT indexdef FROM pg_indexes WHERE tablename = $1 AND indexname = $1 || '_pkey'",
                row["table_name"],
            )
            assert "(slot, " in index
    finally:
        await connection.close()
