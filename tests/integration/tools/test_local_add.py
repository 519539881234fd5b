"""`snapurl-reshard add db4` without a DSN: the running local cluster starts one more server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from snapurl.config import load_settings
from snapurl.local.access import LocalUser
from snapurl.local.cluster import LocalCluster
from snapurl.local.start_requests import serving_start_requests
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.integration.tools.test_commands import one_line, say_at


@asynccontextmanager
async def initialised(home: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(home, ("db0", "db1"), durable=False) as cluster:
        settings = load_settings(home=home, **cluster.settings(LocalUser.OWNER))
        await migrate_all(settings)
        await ensure_cluster(settings)
        yield cluster


async def test_a_local_add_starts_a_server_that_later_starts_start_too(tmp_path: Path) -> None:
    """`add` starts a server that the home records and the topology contains, and the next start has both."""
    home = {"SNAPURL_HOME": str(tmp_path)}
    async with initialised(tmp_path) as running, serving_start_requests(running):
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
    async with LocalCluster(tmp_path, ("db0", "db1"), durable=False) as again:
        assert sorted(again.dsns) == ["db0", "db1", "db2"]
        assert (await say_at(home, "status")).code == 0


async def test_a_local_add_needs_the_cluster_to_run(tmp_path: Path) -> None:
    """If `up` does not take start requests yet, `add` says what to start, and publishes nothing."""
    home = {"SNAPURL_HOME": str(tmp_path)}
    async with initialised(tmp_path):
        one_line(await say_at(home, "add", "db2", "--yes"), "has not started yet: start it with `snapurl up`")
        assert (await say_at(home, "status", "--json")).document["topology_version"] == 1
        (entry,) = (await say_at(home, "history", "--json")).document["entries"]
        assert (entry["outcome"], bool(entry["detail"])) == ("failed", True)


async def test_a_server_that_cannot_start_is_said_to_whoever_asked_and_later_adds_work(
    tmp_path: Path,
) -> None:
    """Whatever keeps a server from starting, `add` says it in one line at once, and the next `add` is served."""
    home = {"SNAPURL_HOME": str(tmp_path)}
    async with initialised(tmp_path) as running, serving_start_requests(running):
        (tmp_path / "db7").write_text("a file in the way of a directory\n")
        one_line(await say_at(home, "add", "db7", "--yes"), "db7: File exists")
        (tmp_path / "db8").mkdir()
        (tmp_path / "db8" / "data").write_text("a file in the way of the data\n")
        one_line(await say_at(home, "add", "db8", "--yes"), "is not a PostgreSQL data directory")
        (tmp_path / "cluster.json.new").mkdir()  # the list of shards cannot be written
        one_line(await say_at(home, "add", "db9", "--yes"), "cannot write")
        (tmp_path / "cluster.json.new").rmdir()
        assert sorted(running.dsns) == ["db0", "db1"]
        assert (await say_at(home, "add", "db9", "--yes")).code == 0


async def test_doctor_says_that_redis_is_dead(tmp_path: Path) -> None:
    """`doctor` names a Redis that does not answer, and nothing once it does again."""
    home = {"SNAPURL_HOME": str(tmp_path)}
    async with initialised(tmp_path) as running:
        assert (await say_at(home, "doctor", "--json")).document == {"findings": []}
        await running.redis.kill()
        said = await say_at(home, "doctor", "--json")
        assert said.code == 1
        (finding,) = said.document["findings"]
        assert finding["kind"] == "redis" and finding["what"].startswith("Redis does not answer")
        await running.redis.start()
        assert (await say_at(home, "doctor")).code == 0
