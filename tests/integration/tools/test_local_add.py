"""`snapurl-reshard add db4` without a DSN: the running local cluster starts one more server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from snapurl.config import load_settings
from snapurl.local.cluster import LocalCluster, saved_settings
from snapurl.local.start_requests import serve_start_requests
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.tasks import cancel_and_wait
from tests.integration.tools.test_commands import one_line, say_at


async def test_a_local_add_starts_a_server_that_later_starts_start_too(tmp_path: Path) -> None:
    """`add` starts a server that the home records and the topology contains, and the next start has both."""
    async with LocalCluster(tmp_path, ("db0", "db1"), durable=False) as running:
        settings = load_settings(home=tmp_path, **saved_settings(tmp_path))
        await migrate_all(settings)
        await ensure_cluster(settings)
        granting = asyncio.create_task(serve_start_requests(running))
        home = {"SNAPURL_HOME": str(tmp_path)}
        try:
            plan = await say_at(home, "plan", "add", "db2", "--json")
            assert plan.code == 0, plan.err
            assert any("local cluster will be started" in note for note in plan.document["notes"])
            assert (await say_at(home, "add", "db2", "--dry-run")).code == 0
            assert sorted(running.dsns) == ["db0", "db1"]
            said = await say_at(home, "add", "db2", "--yes")
            assert said.code == 0, said.err
            assert sorted(running.dsns) == ["db0", "db1", "db2"]
            found = (await say_at(home, "status", "--json")).document
            assert [shard["name"] for shard in found["shards"]] == ["db0", "db1", "db2"]
            for words in (
                ("add", "redis", "--yes"),
                ("plan", "add", "redis"),
                ("apply", "add", "redis", "--yes"),
            ):
                one_line(await say_at(home, *words), "cannot be the name of a shard")
        finally:
            await cancel_and_wait(granting)
    async with LocalCluster(tmp_path, ("db0", "db1"), durable=False) as again:
        assert sorted(again.dsns) == ["db0", "db1", "db2"]
        assert (await say_at({"SNAPURL_HOME": str(tmp_path)}, "status")).code == 0


async def test_a_local_add_needs_the_cluster_to_run(tmp_path: Path) -> None:
    """If no local cluster serves start requests, `add` says what to start, and publishes nothing."""
    async with LocalCluster(tmp_path, ("db0", "db1"), durable=False):
        settings = load_settings(home=tmp_path, **saved_settings(tmp_path))
        await migrate_all(settings)
        await ensure_cluster(settings)
        home = {"SNAPURL_HOME": str(tmp_path)}
        one_line(await say_at(home, "add", "db2", "--yes"), "make up")
        assert (await say_at(home, "status", "--json")).document["topology_version"] == 1
        (entry,) = (await say_at(home, "history", "--json")).document["entries"]
        assert (entry["outcome"], bool(entry["detail"])) == ("failed", True)
