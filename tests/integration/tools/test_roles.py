"""Moves by users with the migrator's role, and the errors when a right is missing."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.model import LinkQuery
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import grant_all, migrate_all
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_bootstrap import with_shards
from tests.support.roles import connected, dsn_as, make_login, run_program
from tests.support.waits import until


@pytest.fixture
async def as_migrator(ready: Settings) -> Settings:
    return await make_login(ready, "migrator_login", "snapurl_migrator")


async def test_a_whole_move(
    ready: Settings, as_migrator: Settings, fifth: str, store: Store, new_link: NewLinkMaker
) -> None:
    """After the owner has migrated a new shard, the migrator's role can add, run, drain, verify and doctor."""
    codes = [f"c{n}" for n in range(300)]
    await store.links.create_many([new_link(code) for code in codes])
    dsn = dsn_as(fifth, "migrator_login")
    refused = await run_program(as_migrator, "snapurl-reshard", "add", "db4", "--dsn", dsn, "--yes")
    assert refused.code == 2 and "run `snapurl migrate` as one who may" in refused.text

    everywhere = with_shards(ready, {**{item.name: item.dsn for item in ready.shard_dsns}, "db4": fifth})
    migrated = await run_program(everywhere, "snapurl", "migrate")
    assert migrated.code == 0 and "db4: 0001_cluster" in migrated.text
    added = await run_program(as_migrator, "snapurl-reshard", "add", "db4", "--dsn", dsn, "--yes")
    assert added.code == 0, added.text
    five = with_shards(as_migrator, {**{item.name: item.dsn for item in as_migrator.shard_dsns}, "db4": dsn})
    for words in (["drain", "db0", "--yes"], ["weight", "db4", "2", "--yes"]):
        assert (
            run := await run_program(five, "snapurl-reshard", "run", "--until-settled", "--grace-s", "0")
        ).code == 0, run
        assert (verified := await run_program(five, "snapurl-reshard", "verify")).code == 0, verified
        assert (changed := await run_program(five, "snapurl-reshard", *words)).code == 0, changed
    assert (
        run := await run_program(five, "snapurl-reshard", "run", "--until-settled", "--grace-s", "0")
    ).code == 0, run
    assert (await run_program(five, "snapurl-reshard", "verify")).code == 0
    assert (found := await run_program(five, "snapurl-reshard", "doctor")).text == "nothing is wrong\n", found
    shards = json.loads((await run_program(five, "snapurl-reshard", "status", "--json")).text)["shards"]
    assert {shard["name"] for shard in shards} == {"db1", "db2", "db3", "db4"}
    assert {link.code for link in (await store.links.page(LinkQuery(), 500)).links} == set(codes)


@pytest.mark.parametrize(
    ("taken", "line"),
    [
        (
            "REVOKE DELETE ON links FROM snapurl_migrator",
            "on shard db2, migrator_login lacks the right DELETE ON links: as snapurl, GRANT DELETE ON links TO "
            "migrator_login",
        ),
        (
            "REVOKE SELECT, INSERT ON click_days FROM snapurl_migrator",
            "lacks the right INSERT ON click_days and 1 more: as snapurl, GRANT INSERT ON click_days TO",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION handoff_commit_v1 FROM snapurl_migrator",
            "EXECUTE ON FUNCTION handoff_commit_v1(",
        ),
    ],
)
async def test_a_missing_right_is_named_before_anything_moves(
    ready: Settings, as_migrator: Settings, taken: str, line: str
) -> None:
    """`plan` and `doctor` name a missing right, the shard and the GRANT; a change is refused."""
    async with connected(ready.shard_dsns[2].dsn) as owner:
        await owner.execute(taken)
    plan = await run_program(as_migrator, "snapurl-reshard", "plan", "drain", "db0")
    assert plan.code == 2 and line in plan.text and "Traceback" not in plan.text
    doctor = await run_program(as_migrator, "snapurl-reshard", "doctor")
    assert doctor.code == 1 and line in doctor.text
    assert (await run_program(as_migrator, "snapurl-reshard", "drain", "db0", "--yes")).code == 2
    assert await grant_all(ready) == []
    assert (await run_program(as_migrator, "snapurl-reshard", "plan", "drain", "db0")).code == 0


async def test_the_service_is_no_migrator(ready: Settings) -> None:
    """The service's user may read; on a change the error names the role that it needs."""
    service = await make_login(ready, "service_login", "snapurl_service")
    plan = await run_program(service, "snapurl-reshard", "plan", "drain", "db0")
    assert plan.code == 2 and "as snapurl, GRANT snapurl_migrator TO service_login" in plan.text
    assert (await run_program(service, "snapurl-reshard", "status")).code == 0


# -- other sessions ------------------------------------------------------------------------------------------------


@pytest.fixture
async def two_migrators(settings: Settings) -> AsyncIterator[tuple[Settings, Settings]]:
    """Yields settings for two migrator users of a cluster whose owner has no other rights on the servers."""
    owned = await make_login(settings, "plain_owner")
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            await superuser.execute(f"ALTER DATABASE {item.dsn.rpartition('/')[2]} OWNER TO plain_owner")
            for role in ("snapurl_service", "snapurl_migrator"):
                if not await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                    await superuser.execute(f"CREATE ROLE {role}")
    await migrate_all(owned)
    await ensure_cluster(owned)
    first = await make_login(settings, "migrator_login", "snapurl_migrator")
    yield first, await make_login(settings, "second_migrator", "snapurl_migrator")
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            await superuser.execute("REVOKE pg_signal_backend FROM plain_owner; DROP ROLE second_migrator")


async def ended(other: Any, stuck: Any) -> None:
    """Waits until the session has ended on the server."""

    async def gone() -> bool:
        query = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
        return bool(await other.fetchval(query, stuck.get_server_pid()))

    await until(gone)


async def test_the_session_of_another_migrator(
    settings: Settings, two_migrators: tuple[Settings, Settings]
) -> None:
    """Ending another migrator's session needs a GRANT, as doctor reports; with it, no other session is ended."""
    first, second = two_migrators
    doctor = await run_program(second, "snapurl-reshard", "doctor")
    assert doctor.code == 1
    # Roles belong to the whole server: other tests may have left migrator logins.
    assert re.search(
        r"db0, the sessions of the migrators .*\bmigrator_login\b.* cannot be ended", doctor.text
    )
    assert "as a superuser, GRANT pg_signal_backend TO plain_owner" in doctor.text

    dsn = settings.shard_dsns[0].dsn
    async with (
        connected(dsn) as superuser,
        connected(first.shard_dsns[0].dsn) as stuck,
        connected(first.shard_dsns[0].dsn) as innocent,
        connected(second.shard_dsns[0].dsn) as other,
    ):
        slot = await superuser.fetchval("SELECT min(slot) FROM slots")
        await stuck.execute("BEGIN")
        await stuck.execute("SELECT handoff_mark_v1($1)", [slot])
        with pytest.raises(
            asyncpg.InsufficientPrivilegeError, match="GRANT pg_signal_backend TO plain_owner"
        ):
            await other.execute("SELECT handoff_evict_v1($1, '{1}')", [slot])
        assert await stuck.fetchval("SELECT 1") == 1

        await superuser.execute("GRANT pg_signal_backend TO plain_owner")
        await other.execute("SELECT handoff_end_v1($1)", innocent.get_server_pid())
        assert await innocent.fetchval("SELECT 1") == 1  # the session is not marked
        await other.execute("SELECT handoff_evict_v1($1, '{1}')", [slot])
        await ended(superuser, stuck)
        stuck.terminate()
    assert (
        "cannot be ended"
        not in (await run_program(second, "snapurl-reshard", "doctor")).text.partition("db1")[0]
    )


async def test_a_session_of_the_same_user_needs_no_grant(two_migrators: tuple[Settings, Settings]) -> None:
    """A migrator ends the session that its predecessor with the same user left, without a GRANT."""
    dsn = two_migrators[0].shard_dsns[0].dsn
    async with connected(dsn) as stuck, connected(dsn) as other:
        slot = await other.fetchval("SELECT min(slot) FROM slots")
        await stuck.execute("BEGIN")
        await stuck.execute("SELECT handoff_mark_v1($1)", [slot])
        await other.execute("SELECT handoff_evict_v1($1, '{1}')", [slot])
        await ended(other, stuck)
        stuck.terminate()


async def test_idle_transactions_of_the_service_are_seen(ready: Settings, as_migrator: Settings) -> None:
    """The migrator sees, through the owner, which user holds a transaction open, but not its query."""
    service = await make_login(ready, "service_login", "snapurl_service")
    async with (
        connected(service.shard_dsns[0].dsn) as idle,
        connected(as_migrator.shard_dsns[0].dsn) as other,
    ):
        await idle.execute("BEGIN")
        await idle.execute("SELECT 1 FROM links")
        seen = await other.fetch("SELECT * FROM idle_transactions_v1(0)")
        assert [(row["pid"], row["who"]) for row in seen] == [(idle.get_server_pid(), "service_login")]


async def test_standbys_that_the_owner_may_not_see(
    settings: Settings, two_migrators: tuple[Settings, Settings]
) -> None:
    """A standby lag that the owner may not see does not throttle the migrator, and `doctor` reports that."""
    migrator, dsn = two_migrators[0], settings.shard_dsns[0].dsn
    standby = await asyncpg.connect(dsn, server_settings={"replication": "database"})
    try:
        doctor = await run_program(migrator, "snapurl-reshard", "doctor")
        assert doctor.code == 1
        assert "on shard db0, the lag of 1 standby(s) cannot be seen" in doctor.text
        assert "as a superuser, GRANT pg_read_all_stats TO plain_owner" in doctor.text
        async with connected(dsn) as superuser:
            await superuser.execute("GRANT pg_read_all_stats TO plain_owner")
        try:
            assert "standby" not in (await run_program(migrator, "snapurl-reshard", "doctor")).text
        finally:
            async with connected(dsn) as superuser:
                await superuser.execute("REVOKE pg_read_all_stats FROM plain_owner")
    finally:
        standby.terminate()


async def test_no_rights_at_all(ready: Settings) -> None:
    """For a user without a role, every command prints one line with the GRANT."""
    nobody = await make_login(ready, "nobody_login")
    for words in (["status"], ["plan", "drain", "db0"], ["run"], ["doctor"], ["verify"]):
        said = await run_program(nobody, "snapurl-reshard", *words, SNAPURL_LOG_LEVEL="error")
        assert said.code == 2, said
        assert said.text.count("\n") == 1 and "snapurl_migrator) TO that user" in said.text
