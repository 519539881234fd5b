"""Shards that return with old data: none serves a slot that another shard owns at a higher epoch."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from ring.handoff import Step
from ring.slots import slot_of
from snapurl.errors import Unavailable
from snapurl.store.cluster import failover
from tests.failover.conftest import Maker, World
from tests.failover.moving import AWAY, HERE, moving
from tests.failover.servers import cut_stream, promote, put_back, save
from tests.integration.tools.conftest import settle
from tests.support.waits import HANG_S, until
from tools.cluster.fleet import Fleet
from tools.repair.consistency import verify_cluster
from tools.transfer.executor import Refused


async def fill(world: World, slots: tuple[int, ...]) -> None:
    """Creates an acknowledged link in each of the slots."""
    left = set(slots)
    for code in (f"f{number}" for number in itertools.count()):
        if slot_of(code) in left:
            left.discard(slot_of(code))
            await world.create(code)
        if not left:
            return


async def fail_over(world: World) -> None:
    primary, standby = world.hosts["db0"]
    await primary.kill()
    await promote(standby)


async def all_is_well(world: World) -> None:
    """Asserts that a migrator settles, `verify` finds nothing, and no acknowledged link is missing."""
    await settle(world.settings)
    fleet = await Fleet.connect(world.settings)
    assert await verify_cluster(fleet, await fleet.observe()) == []
    await fleet.close()
    await world.reopen()
    assert await world.missing() == set()


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_older_backup_serves_nothing_that_was_given_away_since(
    make_world: Maker, *, guarded: bool
) -> None:
    """A restored data directory serves nothing, is reported by readiness and doctor, and can be fixed.

    Without the guard (the test attests without an assessment) two shards would serve the same slots.
    """
    world = await make_world()
    server = world.hosts["db0"][0]
    await server.stop()
    backup = save(server)
    await server.start()
    await world.heals("db0")
    world.acked.clear()  # the backup is older
    async with moving(world, AWAY) as move:
        await fill(world, move.slots)
        await move.on()
    await world.store.shards.close()
    await server.stop()
    put_back(server, backup)
    await server.start()
    slot, other = move.slots[0], move.other
    if not guarded:
        await world.ask("db0", "SELECT shard_attest_v1(pg_postmaster_start_time())")
        assert await world.serves(slot) == {"db0", other}
        return
    assert await world.serves(slot) == {other}
    await world.reopen()

    async def is_assessed() -> bool:
        return "given away since" in await world.ready("db0")

    await until(is_assessed)
    assert await world.serves(slot) == {other}
    assert await world.missing() == set()
    kept = next(world.codes("db0"))
    with pytest.raises(Unavailable):
        await world.store.links.get(kept)
    found = next(each for each in await world.diagnoses() if each.kind == "returned")
    assert f"which {other} has at a higher epoch" in found.problem
    assert found.remedy == "snapurl-reshard doctor --fix"
    await world.fix()
    assert await world.serves(slot) == {other}
    await world.heals("db0")
    await all_is_well(world)


async def test_a_migrator_rejoins_a_shard_that_lost_transactions(make_world: Maker) -> None:
    """A standby promoted without the whole move gives up the slots it has lost as soon as a migrator runs."""
    world = await make_world(standby=True)
    async with moving(world, AWAY) as move:
        await fill(world, move.slots)
        await asyncio.sleep(0.5)
        await cut_stream(world.hosts["db0"][1])
        await move.on()
    await fail_over(world)
    assert await world.serves(move.slots[0]) == {move.other}
    await all_is_well(world)
    assert await world.serves(move.slots[0]) == {move.other}


@pytest.mark.parametrize("lost", [Step.LEAVE, Step.FREEZE, Step.CLOSE])
@pytest.mark.parametrize("decided", [True, False])
async def test_a_lost_step_of_the_source_never_makes_two_owners(
    make_world: Maker, lost: Step, *, decided: bool
) -> None:
    """A source that returns without its last steps, before or after the commit, never makes two owners."""
    world = await make_world(standby=True)
    async with moving(world, AWAY) as move:
        await fill(world, move.slots)
        await asyncio.sleep(0.3)
        await move.before(lost)
        await cut_stream(world.hosts["db0"][1])
        await move.through(Step.CLOSE)
        if decided:
            await move.through(Step.COMMIT)
        await fail_over(world)
        slot = move.slots[0]
        assert await world.serves(slot, "db0") == set()
        if decided:
            await world.fix()
            assert await world.serves(slot) == {move.other}
        else:
            await world.fix("returned")  # retracts the import, and attests
            assert await world.serves(slot) == {"db0"}
            with pytest.raises(Refused):
                await move.through(Step.COMMIT)
            assert await world.serves(slot) == {"db0"}
    await all_is_well(world)


async def test_a_target_that_lost_the_decision_is_named_by_doctor(make_world: Maker) -> None:
    """If the new owner has lost the slots, no shard serves them, and doctor names the shard with the last copy."""
    world = await make_world(standby=True)
    async with moving(world, HERE) as move:
        await move.before(Step.COMMIT)
        await cut_stream(world.hosts["db0"][1])
        await move.on()
    await fail_over(world)
    await world.heals("db0")
    assert await world.serves(move.slots[0]) == set()
    found = [each for each in await world.diagnoses() if each.kind == "no-owner"]
    assert len(found) == 1
    assert f"{move.other} gave them to db0, which has lost them" in found[0].problem


async def test_an_old_primary_that_restarts_serves_nothing(make_world: Maker) -> None:
    """After a promotion is attested, the restarted old primary serves nothing, and doctor says why."""
    world = await make_world(standby=True)
    primary, standby = world.hosts["db0"]
    await fail_over(world)
    await world.heals("db0")
    await standby.kill()
    await primary.start()
    async with asyncio.timeout(HANG_S):
        while "timeline" not in await world.ready("db0"):
            await asyncio.sleep(0.1)
    code = next(world.codes("db0"))
    assert await world.serves(slot_of(code)) == set()
    found = next(each for each in await world.diagnoses() if each.kind == "returned")
    assert found.fix is None
    assert "DELETE FROM peer_logs WHERE shard = 'db0'" in found.remedy
    for name in ("db1", "db2"):
        await world.ask(name, "DELETE FROM peer_logs WHERE shard = 'db0'")
    await world.heals("db0")


async def test_clients_of_a_restarted_old_primary_find_the_new_one(make_world: Maker) -> None:
    """If the old primary restarts, services and migrators that connect to it first find the new primary."""
    world = await make_world(standby=True)
    primary, standby = world.hosts["db0"]
    await fail_over(world)
    await world.heals("db0")
    await primary.start()
    failover._last_primary.clear()  # as in a new process, which asks the first host first
    await world.reopen()
    await world.heals("db0")
    failover._last_primary.clear()
    await world.weigh(AWAY)
    await all_is_well(world)
    assert await standby.ask("SELECT count(*) FROM slots WHERE state = 'released'") != 0
    assert await primary.ask("SELECT count(*) FROM slots WHERE state = 'released'") == 0


async def test_a_plain_restart_waits_only_for_shards_that_may_have_its_slots(make_world: Maker) -> None:
    """A plainly restarted server serves while another is down, unless slots are to move to that one."""
    world = await make_world()
    await world.hosts["db2"][0].stop()
    await world.hosts["db0"][0].stop()
    await world.hosts["db0"][0].start()
    await world.heals("db0")
    await world.hosts["db2"][0].start()
    await world.heals("db2")
    await world.weigh(AWAY)
    await world.hosts["db2"][0].stop()
    await world.hosts["db0"][0].stop()
    await world.hosts["db0"][0].start()
    code = next(world.codes("db0"))
    async with asyncio.timeout(HANG_S):
        while "must answer first" not in await world.ready("db0"):
            await world.try_to_create(code)
    assert await world.serves(slot_of(code), "db0") == set()
    await world.hosts["db2"][0].start()
    await world.heals("db0")


async def test_a_promoted_standby_waits_until_all_shards_answer(make_world: Maker) -> None:
    """A promoted standby, which may have lost anything, serves nothing while a shard is silent."""
    world = await make_world(standby=True)
    await world.hosts["db2"][0].stop()
    await fail_over(world)
    code = next(world.codes("db0"))
    async with asyncio.timeout(HANG_S):
        while "db2 must answer first" not in await world.ready("db0"):
            await world.try_to_create(code)
    assert await world.serves(slot_of(code), "db0") == set()
    found = next(each for each in await world.diagnoses() if each.kind == "returned")
    assert "bring the silent shards back" in found.remedy
    await world.hosts["db2"][0].start()
    await world.heals("db0")
