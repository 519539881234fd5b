"""First starts, and starts with wrong DSNs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from ring.slots import SLOT_COUNT
from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.shards import Shards, close_quietly, connect_once


def with_shards(settings: Settings, dsns: dict[str, str]) -> Settings:
    return settings.model_copy(
        update={"shards": type(settings.shards)(" ".join(f"{name}={dsn}" for name, dsn in dsns.items()))}
    )


async def start(settings: Settings) -> None:
    await migrate_all(settings)
    await ensure_cluster(settings)


async def rows(dsn: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query)
        return found
    finally:
        await connection.close()


async def test_eight_starts_at_once_initialise_exactly_once(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """Eight processes that start at once on empty shards make one cluster in which every slot has one owner."""
    await asyncio.gather(*(start(settings) for _ in range(8)))
    identities = [
        (await rows(dsn, "SELECT cluster_id, shard, state FROM cluster"))[0] for dsn in fresh_shards.values()
    ]
    assert len({row["cluster_id"] for row in identities}) == 1
    assert [row["shard"] for row in identities] == list(fresh_shards)
    assert {row["state"] for row in identities} == {"ready"}
    slots = [
        row["slot"] for dsn in fresh_shards.values() for row in await rows(dsn, "SELECT slot FROM slots")
    ]
    assert sorted(slots) == list(range(SLOT_COUNT))


@pytest.mark.parametrize("filled", [0, 1, 2, 3])
async def test_an_interrupted_first_start_is_finished_by_the_next(
    settings: Settings, fresh_shards: dict[str, str], filled: int
) -> None:
    """Whichever shards a killed first start had initialised, the next start completes the same cluster."""
    await start(settings)
    before = (await rows(fresh_shards["db0"], "SELECT cluster_id FROM cluster"))[0]["cluster_id"]
    await rows(fresh_shards["db0"], "DELETE FROM slots")
    await rows(fresh_shards["db0"], "UPDATE cluster SET state = 'initialising'")
    for name in ("db1", "db2", "db3")[filled:]:
        for table in ("slots", "topology", "cluster"):
            await rows(fresh_shards[name], f"DELETE FROM {table}")
    with pytest.raises(ConfigError, match="not initialised"):
        await Shards.connect(settings)
    await start(settings)
    found = {
        (await rows(dsn, "SELECT cluster_id FROM cluster"))[0]["cluster_id"] for dsn in fresh_shards.values()
    }
    assert found == {before}
    total = [row for dsn in fresh_shards.values() for row in await rows(dsn, "SELECT slot FROM slots")]
    assert len(total) == SLOT_COUNT


async def test_one_empty_shard_among_initialised_ones_is_refused(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """A shard that has lost its data stops the start instead of being initialised again."""
    await start(settings)
    for table in ("slots", "topology", "cluster"):
        await rows(fresh_shards["db2"], f"DELETE FROM {table}")
    with pytest.raises(ConfigError, match="db2 leads to an empty database"):
        await start(settings)
    assert await rows(fresh_shards["db2"], "SELECT * FROM slots") == []


async def test_two_swapped_dsns_are_refused(settings: Settings, fresh_shards: dict[str, str]) -> None:
    """Swapped DSNs stop the start with an error that names both shards."""
    await start(settings)
    swapped = {**fresh_shards, "db0": fresh_shards["db1"], "db1": fresh_shards["db0"]}
    with pytest.raises(ConfigError, match="db0 leads to shard db1: are two DSNs swapped"):
        await ensure_cluster(with_shards(settings, swapped))
    with pytest.raises(ConfigError, match="swapped"):
        await Shards.connect(with_shards(settings, swapped))


async def test_a_shard_of_another_cluster_is_refused(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """A DSN that leads to a shard of another cluster stops the start."""
    await start(settings)
    await rows(fresh_shards["db3"], "UPDATE cluster SET cluster_id = gen_random_uuid()")
    with pytest.raises(ConfigError, match="db3 leads to a shard of another cluster"):
        await ensure_cluster(settings)
    with pytest.raises(ConfigError, match="another cluster"):
        await Shards.connect(settings)


async def test_a_first_start_needs_every_shard(settings: Settings, fresh_shards: dict[str, str]) -> None:
    """While a shard cannot be reached, no cluster is initialised and nothing is written."""
    await migrate_all(settings)
    broken = {**fresh_shards, "db2": "postgresql://snapurl@127.0.0.1:1/none"}
    with pytest.raises(ConfigError, match="db2 refuses connections"):
        await ensure_cluster(with_shards(settings, broken))
    assert await rows(fresh_shards["db0"], "SELECT * FROM cluster") == []


async def test_a_later_start_goes_on_without_a_silent_shard(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """An initialised cluster starts with one shard unreachable, and health names the shard."""
    await start(settings)
    broken = with_shards(settings, {**fresh_shards, "db2": "postgresql://snapurl@127.0.0.1:1/none"})
    await start(broken)
    shards = await Shards.connect(broken)
    try:
        assert {item.name: item.ok for item in await shards.health()} == {
            "db0": True,
            "db1": True,
            "db2": False,
            "db3": True,
        }
    finally:
        await shards.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dsn: dsn.replace("snapurl:", "snapurl:wrong"), "db1 refuses the user or password"),
        (lambda dsn: dsn.rpartition("/")[0] + "/nowhere", "db1 has no database of the name"),
        (lambda dsn: dsn.replace("127.0.0.1:", "127.0.0.1:x"), "DSN of shard db1 cannot be read"),
    ],
)
async def test_a_wrong_dsn_stops_the_start_with_one_line(
    settings: Settings, fresh_shards: dict[str, str], change: Callable[[str], str], message: str
) -> None:
    """A wrong password, database or port stops the start with one line that does not contain the password."""
    await start(settings)
    wrong = with_shards(settings, {**fresh_shards, "db1": change(fresh_shards["db1"])})
    with pytest.raises(ConfigError, match=message) as caught:
        await migrate_all(wrong)
    assert "\n" not in caught.value.detail
    with pytest.raises(ConfigError, match=message):
        await Shards.connect(wrong)


async def test_shards_that_the_list_leaves_out_are_found_through_the_topology(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """A process configured with one shard reaches the others at the addresses in the topology."""
    await start(settings)
    shards = await Shards.connect(with_shards(settings, {"db0": fresh_shards["db0"]}))
    try:
        assert all(item.ok for item in await shards.health())
        assert shards.map.unknown == 0
    finally:
        await shards.close()


async def test_a_server_that_is_slow_to_close_fails_nothing(settings: Settings) -> None:
    """A result read over a connection is used even if the server does not close the connection in time."""
    connection = await connect_once("db0", settings.shard_dsns[0].dsn, 5.0)
    await close_quietly(connection, 1e-9)
    assert connection.is_closed()
