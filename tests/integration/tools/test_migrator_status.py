"""What is told of the migrator while the shards of its cluster come and go, and which migrator works."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from ring.placement import place
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.shards import Shards, read_topology
from tests.integration.clicks.test_clicks import environ
from tests.integration.store.test_bootstrap import with_shards
from tests.support.waits import unless_hung, until
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.cluster.status import read_status
from tools.migrator.loop import Migrator, Options
from tools.migrator.throttle import Sample, Throttle

NEWEST_TOPOLOGY = "SELECT document FROM topology ORDER BY version DESC LIMIT 1"


@asynccontextmanager
async def running(settings: Settings, count: int) -> AsyncIterator[list[Migrator]]:
    """Runs migrators until the block ends; an error of one of them is raised."""
    stop = asyncio.Event()
    migrators = [Migrator(settings, Options(grace_s=0.0)) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for migrator in migrators:
            group.create_task(migrator.run(stop))
        try:
            yield migrators
        finally:
            stop.set()


@asynccontextmanager
async def watched(migrators: list[Migrator]) -> AsyncIterator[list[int]]:
    """Yields the numbers of migrators that worked at one time, collected for as long as the block lasts."""
    found: list[int] = []

    async def watch() -> None:
        while True:
            found.append(sum(migrator.works for migrator in migrators))
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watcher.cancel()


async def status_is_right(settings: Settings) -> dict[str, Any] | None:
    """Returns what `status` and the HTTP API show, once both show a migrator that knows the newest topology."""
    fleet = await Fleet.connect(settings)
    try:
        shown = await read_status(fleet)
    finally:
        await fleet.close()
    shards = await Shards.connect(settings)
    try:
        document = await shards.migrator_document()
    finally:
        await shards.close()
    right = shown.migrator_runs and shown.migrator.topology_version == shown.topology_version
    if not right or document is None or document["topology_version"] != shown.topology_version:
        return None
    return document


async def seat(direct: dict[str, Any], topology: Topology) -> None:
    """Puts every slot where the topology places it, as if all of them had moved: to move them takes minutes."""
    placement = place(topology)
    for name, connection in direct.items():
        slots = [slot for slot, shard in enumerate(placement) if shard == name]
        async with connection.transaction():
            await connection.execute("DELETE FROM slots")
            await connection.execute(
                "INSERT INTO slots (slot, state, epoch) SELECT unnest($1::smallint[]), 'owned', $2",
                slots,
                topology.version,
            )


async def publish_and_seat(
    settings: Settings, direct: dict[str, Any], change: Callable[[Topology], Topology]
) -> None:
    """Publishes a changed topology, and lets the migrators at it when no slot has to move any more."""
    fleet = await Fleet.connect(settings)
    try:
        await fleet.observe()
        await publish(fleet, change(fleet.topology).with_paused(True))
        await seat(direct, fleet.topology)
        await publish(fleet, fleet.topology.with_paused(False))
    finally:
        await fleet.close()


async def drain(settings: Settings, direct: dict[str, Any], name: str) -> None:
    """Drains a shard, and returns when a migrator has removed it from the topology."""
    await publish_and_seat(settings, direct, lambda topology: topology.drained(name))

    async def gone() -> bool:
        newest = [await connection.fetchval(NEWEST_TOPOLOGY) for connection in direct.values()]
        topology = max(map(Topology.from_json, newest), key=lambda topology: topology.version)
        return name not in {shard.name for shard in topology.shards}

    await until(gone)


@pytest.mark.long
async def test_every_shard_may_leave_without_taking_the_status_of_the_migrator_with_it(
    ready: Settings, direct: dict[str, Any]
) -> None:
    """While each shard in turn is drained, leaves and comes back, `status` and the API show the migrator that
    works, and never does a second one work beside it."""
    topology = await read_topology(ready)
    shards = {shard.name: shard for shard in topology.shards}
    async with running(ready, 2) as migrators, watched(migrators) as at_once:
        await until(lambda: any(migrator.works for migrator in migrators))
        for name in ("db0", "db1", "db2", "db3"):
            await drain(ready, direct, name)
            await until(lambda: status_is_right(ready), partial(str, f"after {name} has left"))

            async def lease_ran_out(left: str = name) -> Any:
                return await direct[left].fetchval(
                    "SELECT heartbeat_at < clock_timestamp() - interval '6 s' FROM migrator"
                )

            await until(lease_ran_out)
            assert await status_is_right(ready), f"long after {name} has left"
            back = shards[name]
            await publish_and_seat(ready, direct, partial(Topology.with_shard, shard=back))
            await until(lambda: status_is_right(ready), partial(str, f"after {name} has come back"))
        await until(
            lambda: sum(migrator.works for migrator in migrators) == 1
        )  # a slow one hands its lease over
        assert max(at_once) == 1


async def test_another_migrator_takes_over_after_the_shards_have_changed(
    ready: Settings, direct: dict[str, Any]
) -> None:
    """A migrator on standby learns of shards that have left, and takes over when the active one ends."""
    async with running(ready, 1) as (second,):
        async with running(ready, 1) as (first,):
            await until(lambda: first.works != second.works)
            await drain(ready, direct, "db0")
            await drain(ready, direct, "db1")
        await until(lambda: second.works)
        await until(lambda: status_is_right(ready))


async def test_a_drained_shard_may_be_switched_off(
    ready: Settings, direct: dict[str, Any], cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """After a drained shard is stopped, the migrator works on, executes the next change, and stops when asked."""
    async with running(ready, 1) as (migrator,):
        await until(lambda: migrator.works)
        await drain(ready, direct, "db0")
        await cluster.shard("db0").stop()
        left = {name: connection for name, connection in direct.items() if name != "db0"}
        await drain(ready, left, "db1")
        await until(lambda: status_is_right(ready))
        assert migrator.works
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


PROGRAM = """
import socket, sys, threading
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **options: (
    threading.Event().wait() if host == "db0.silent" else look_up(host, *more, **options)
)
from tools.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["status", "run"])
async def test_a_name_that_nobody_answers_holds_up_no_command(ready: Settings, command: str) -> None:
    """While the name of one shard is not answered, `status` ends, and a migrator works and stops when asked."""
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    dsns["db0"] = "postgresql://u:p@db0.silent/x"
    lost = ready.model_copy(update={"statement_timeout_ms": 1_000, "shards": with_shards(ready, dsns).shards})
    words = ("--metrics-port", "0", "--json") if command == "run" else ()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, command, *words,
        env={**environ(lost), "SNAPURL_STATEMENT_TIMEOUT_MS": "1000", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if command == "run":
        shards = {name: dsn for name, dsn in dsns.items() if name != "db0"}
        fleet = await Fleet.connect(with_shards(ready, shards))
        rows = "SELECT status::json ->> 'state' AS state FROM migrator WHERE status NOT LIKE '%standby%'"
        await until(lambda: fleet.fetch("db3", rows))
        await fleet.close()
        process.terminate()
    out, err = await unless_hung(process.communicate())
    assert process.returncode == 0, err
    assert b"retrieved" not in err
    assert command == "run" or b"shard db0 " in out


async def test_a_task_of_the_migrator_that_fails_ends_it(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migrator whose heartbeat or probe fails in an unforeseen way ends with that error and does not work on."""
    slowed = Throttle()
    slowed.observe(Sample(shards_ms=1.0, lag_s=60.0))  # so that it probes though nothing moves

    def broken(self: Migrator) -> None:
        raise ArithmeticError("cannot happen")

    for helper in ("current_status", "_probe_service"):
        with monkeypatch.context() as patched:
            patched.setattr(Migrator, helper, broken)
            with pytest.raises(ArithmeticError, match="cannot happen"):
                async with asyncio.timeout(120):
                    await Migrator(ready, Options(throttle=slowed)).run(asyncio.Event())
