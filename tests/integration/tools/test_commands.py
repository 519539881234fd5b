"""`snapurl-reshard` as an operator runs it, against real shards."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from ring.plan import plan
from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.store.cluster.migrate import load_migrations
from tests.integration.http.service import running
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.tools.conftest import settle
from tests.support.programs import PIPE, Process, start
from tests.support.waits import HANG_S, until
from tools.cli import main
from tools.cluster.fleet import Fleet


@dataclass(frozen=True)
class Finished:
    """The exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def environ_of(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")}
    return {
        **kept,
        "SNAPURL_SHARDS": settings.shards.get_secret_value(),
        "SNAPURL_HOME": str(settings.home),
    }


async def begin(settings: Settings, *words: str) -> Process:
    return await start("tools.cli", *words, env=environ_of(settings), stdout=PIPE, stderr=PIPE)


async def run_program(settings: Settings, *words: str) -> Finished:
    """Runs a command: `run`, which handles signals, in a new process; the others in a thread of this one."""
    if words[0] == "run":
        process = await begin(settings, *words)
        out, err = await asyncio.wait_for(process.communicate(), HANG_S)
        said = Finished(process.returncode or 0, out.decode(), err.decode())
    else:
        environ = environ_of(settings)
        said = await say_at({name: environ[name] for name in environ if name.startswith("SNAPURL_")}, *words)
    assert "Traceback" not in said.err
    for item in settings.shard_dsns:
        password = item.dsn.partition("@")[0].rpartition(":")[2]
        assert password not in said.out + said.err
    return said


async def say_at(environ: dict[str, str], *words: str) -> Finished:
    """Runs a command in a thread, with these SNAPURL_* variables and no terminal for prompts."""
    return await asyncio.wait_for(asyncio.to_thread(_say, environ, words), HANG_S)


def _say(environ: dict[str, str], words: tuple[str, ...]) -> Finished:
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        Path(os.devnull).open() as nothing,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "stdin", nothing)
        for name, value in environ.items():
            patch.setenv(name, value)
        try:
            main(words)
        except SystemExit as ended:
            return Finished(int(ended.code or 0), out.getvalue(), err.getvalue())


async def state_of(settings: Settings) -> list[Any]:
    """Returns everything that a command could have changed: topologies, slots, audit rows."""
    found: list[Any] = []
    for item in settings.shard_dsns:
        connection = await asyncpg.connect(item.dsn)
        found += [
            [tuple(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1")]
            for table in ("topology", "slots", "audit")
        ]
        await connection.close()
    return found


def one_line(said: Finished, *words: str) -> None:
    """Asserts that a command was refused with an exit code and one line that contains `words`."""
    assert said.code != 0
    assert said.err.startswith("snapurl-reshard: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


async def refused(settings: Settings, words: tuple[str, ...], *expected: str) -> None:
    before = await state_of(settings)
    one_line(await run_program(settings, *words), *expected)
    assert await state_of(settings) == before


@pytest.fixture
async def links(store: Store, new_link: NewLinkMaker) -> list[str]:
    """Creates 400 links and returns their codes."""
    codes = [f"k{number}" for number in range(400)]
    await store.links.create_many([new_link(code) for code in codes])
    return codes


# -- plan and the changes -----------------------------------------------------------------------------------------


async def test_plan_shows_slots_rows_and_bytes_and_changes_nothing(
    ready: Settings, fifth: str, links: list[str]
) -> None:
    """`plan add` shows what each shard has before and after a fifth of the slots move, and changes nothing."""
    before = await state_of(ready)
    said = await run_program(ready, "plan", "add", "db4", "--dsn", fifth, "--json")
    assert said.code == 0, said.err
    found = said.document
    assert 0.19 <= found["slots_to_move"] / 16_384 <= 0.21
    assert 0 < found["rows_to_move"] < len(links)
    assert found["rows_per_s"] > 0
    assert found["seconds"] > 0
    shards = {shard["name"]: shard for shard in found["shards"]}
    assert shards["db4"]["slots"] == 0
    assert shards["db4"]["slots_after"] == found["slots_to_move"]
    assert sum(shard["slots_after"] for shard in shards.values()) == 16_384
    assert sum(shard["rows"] for shard in shards.values()) == len(links)
    text = await run_program(ready, "plan", "add", "db4", f"--dsn={fifth}")
    assert "db4" in text.out
    assert "slots move (" in text.out
    assert await state_of(ready) == before


async def test_plan_takes_several_changes_at_once(ready: Settings, fifth: str) -> None:
    """One plan can add, drain and re-weight shards."""
    words = ("add", "db4", "--dsn", fifth, "--weight", "2", "drain", "db1", "weight", "db0", "0.5")
    found = (await run_program(ready, "plan", *words, "--json")).document
    after = {shard["name"]: shard["slots_after"] for shard in found["shards"]}
    assert after["db1"] == 0
    assert after["db4"] > after["db2"] > after["db0"] > 0


async def test_add_run_and_history(ready: Settings, fifth: str, links: list[str]) -> None:
    """`add` publishes, `run` moves, `verify` is clean afterwards, and every shard's audit log names the user."""
    dry = await run_program(ready, "add", "db4", "--dsn", fifth, "--dry-run", "--json")
    assert dry.code == 0
    assert dry.document["dry_run"] is True
    assert (await run_program(ready, "history", "--json")).document == {"entries": []}
    said = await run_program(ready, "add", "db4", "--dsn", fifth, "--yes", "--json")
    assert said.code == 0, said.err
    assert said.document["topology_version"] == 2
    assert (await run_program(ready, "verify")).code == 1
    ran = await run_program(ready, "run", "--until-settled", "--grace-s", "0")
    assert ran.code == 0, ran.err
    checked = await run_program(ready, "verify", "--json")
    assert checked.document == {"wrong": []}
    assert checked.code == 0
    assert (await run_program(ready, "doctor", "--json")).document == {"findings": []}
    entries = (await run_program(ready, "history", "--json")).document["entries"]
    assert [(entry["what"], entry["outcome"]) for entry in entries] == [("add db4", "finished")]
    assert "@" in entries[0]["who"]
    for dsn in (*(item.dsn for item in ready.shard_dsns), fifth):
        connection = await asyncpg.connect(dsn)
        assert (
            await connection.fetchval("SELECT count(*) FROM audit WHERE outcome = 'published: topology 2'")
            == 1
        )
        await connection.close()


async def test_drain_and_weight_change_the_goal(ready: Settings) -> None:
    """`weight` and `drain` each publish a topology, and `status` shows what is left to move."""
    assert (await run_program(ready, "weight", "db0", "2", "--yes")).code == 0
    said = await run_program(ready, "drain", "db3", "--yes")
    assert said.code == 0
    assert "this replaces its goal" in said.out
    found = (await run_program(ready, "status", "--json")).document
    shards = {shard["name"]: shard for shard in found["shards"]}
    assert found["topology_version"] == 3
    assert shards["db3"]["draining"] is True
    assert shards["db3"]["slots_goal"] == 0
    assert shards["db0"]["weight"] == 2
    assert found["slots_left"] > 0
    assert found["settled"] is False
    assert found["migrator_runs"] is False


async def test_a_draining_shard_is_taken_back_without_its_dsn(ready: Settings) -> None:
    """`add` of a draining shard finds its address in the topology."""
    assert (await run_program(ready, "drain", "db3", "--yes")).code == 0
    rest = [item for item in ready.shard_dsns if item.name != "db3"]
    fewer = ready.model_copy(update={"shards": SecretStr(" ".join(f"{i.name}={i.dsn}" for i in rest))})
    said = await run_program(fewer, "add", "db3", "--yes")
    assert said.code == 0, said.err
    assert (await run_program(ready, "status", "--json")).document["slots_left"] == 0


async def test_apply_makes_several_changes_in_one_topology(ready: Settings, fifth: str) -> None:
    """`apply` publishes one topology for all of its changes, and one audit row."""
    said = await run_program(ready, "apply", "add", "db4", "--dsn", fifth, "drain", "db1", "--yes", "--json")
    assert said.code == 0, said.err
    assert said.document["topology_version"] == 2
    entries = (await run_program(ready, "history", "--json")).document["entries"]
    assert [entry["what"] for entry in entries] == ["add db4 drain db1"]


async def test_a_second_add_replaces_the_goal_and_says_so(
    ready: Settings, fifth: str, links: list[str]
) -> None:
    """`add` is allowed while another addition runs; its output says that it replaces the goal."""
    assert (await run_program(ready, "add", "db4", "--dsn", fifth, "--yes")).code == 0
    sixth = await another_database(ready, "sixth")
    said = await run_program(ready, "add", "db5", "--dsn", sixth, "--yes", "--json")
    assert said.code == 0, said.err
    assert any("this replaces its goal" in note for note in said.document["notes"])
    await settle(ready)
    names = {item["name"] for item in (await run_program(ready, "status", "--json")).document["shards"]}
    assert names == {"db0", "db1", "db2", "db3", "db4", "db5"}


async def another_database(settings: Settings, suffix: str) -> str:
    """Returns the DSN of an empty database on the server of db1; it is dropped with the server."""
    dsn = settings.shard_dsns[1].dsn
    name = f"{suffix}_{dsn.rpartition('/')[2]}"
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return f"{dsn.rpartition('/')[0]}/{name}"


async def test_nobody_to_ask_means_no(ready: Settings) -> None:
    """Without a terminal and without --yes, a command that makes changes is refused and changes nothing."""
    for words in (("drain", "db1"), ("weight", "db0", "2"), ("pause",)):
        await refused(ready, words, "--yes")


async def test_dry_run_changes_nothing(ready: Settings, fifth: str) -> None:
    """No command with --dry-run changes anything."""
    assert (await run_program(ready, "drain", "db2", "--yes")).code == 0
    before = await state_of(ready)
    for words in (
        ("add", "db4", "--dsn", fifth),
        ("drain", "db1"),
        ("weight", "db0", "2"),
        ("apply", "drain", "db1"),
        ("pause",),
        ("cancel",),
        ("cleanup",),
    ):
        said = await run_program(ready, *words, "--dry-run")
        assert said.code == 0, (words, said.err)
        assert json.loads((await run_program(ready, *words, "--dry-run", "--json")).out)
    assert await state_of(ready) == before
    connection = await asyncpg.connect(fifth)
    assert not await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("drain", "nosuch"), "no shard 'nosuch'"),
        (("weight", "nosuch", "2"), "no shard 'nosuch'"),
        (("weight", "db0", "0"), "weight must be above 0"),
        (("weight", "db0", "-1"), "weight must be above 0"),
        (("weight", "db0", "nan"), "weight must be above 0"),
        (("weight", "db0", "inf"), "weight must be above 0"),
        (("weight", "db0", "much"), "not a valid float"),
        (("weight", "db0"), "Missing argument"),
        (("add", "db0"), "there already"),
        (("add", "db4"), "--dsn"),
        (("add", "DB 4", "--dsn", "postgresql://h:1/d"), "shard's name"),
        (("add", "db4", "--dsn", "mysql://h:1/d"), "must start with postgresql://"),
        (("add", "db4", "--dsn", "postgresql://[h:1/d"), "must start with postgresql://"),
        (
            ("add", "db4", "--dsn", "postgresql://me:secret@127.0.0.1:1/d"),
            "db4 refuses connections: nothing listens",
        ),
        (("apply", "drain", "db0", "drain", "db1", "drain", "db2", "drain", "db3"), "last"),
        (("apply",), "add NAME"),
        (("plan", "grow"), "'grow' is no change"),
        (("cancel",), "nothing to cancel"),
        (("resume",), "not paused"),
        (("run", "--grace-s", "-1"), "--grace-s"),
        (("nosuch",), "No such command"),
        (("remove", "db0"), "Did you mean 'drain'?"),
    ],
)
async def test_bad_input_is_one_clear_line(ready: Settings, words: tuple[str, ...], expected: str) -> None:
    """Bad input gets one line on stderr, an exit code, and no change; no password is printed."""
    can_ask = words[0] not in ("plan", "run", "nosuch")
    await refused(ready, (*words, "--yes") if can_ask else words, expected)


async def test_a_database_that_is_a_shard_already_is_refused(
    ready: Settings, make_settings: Callable[..., Settings]
) -> None:
    """Neither the address of a shard nor another address of the same database can be added."""
    dsn = ready.shard_dsns[0].dsn
    await refused(ready, ("add", "db4", "--dsn", dsn, "--yes"), "is shard db0 of this cluster already")
    aliased = dsn.replace("127.0.0.1", "localhost")
    await refused(ready, ("add", "db4", "--dsn", aliased, "--yes"), "is shard db0 of this cluster already")


async def test_a_shard_of_another_cluster_is_refused(ready: Settings, five: Settings, fifth: str) -> None:
    """A database with the identity of another cluster cannot be added."""
    connection = await asyncpg.connect(fifth)
    await connection.execute(
        "INSERT INTO cluster (cluster_id, shard, state) VALUES (gen_random_uuid(), 'db4', 'ready')"
    )
    await connection.close()
    await refused(ready, ("add", "db4", "--dsn", fifth, "--yes"), "another cluster")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM schema_migrations WHERE version > 3", "older tables (0003)"),
        (
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'x', 'y')",
            "newer tables (9999)",
        ),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 2", "other contents"),
        (
            "UPDATE schema_migrations SET checksum = "
            "'5dfcf716f925b91df9c9998b989de936a14d65e328e2ab3956a1ba6a8de4330b' WHERE version = 1",
            "development version before 0.1.0",
        ),
        ("DROP TABLE schema_migrations", "not SnapURL's"),
    ],
)
async def test_other_tables_are_refused(
    ready: Settings, five: Settings, fifth: str, statement: str, expected: str
) -> None:
    """A database with an older, a newer or a foreign schema cannot be added; the error says what to do."""
    assert len(load_migrations()) > 3
    connection = await asyncpg.connect(fifth)
    await connection.execute(statement)
    await connection.close()
    await refused(ready, ("add", "db4", "--dsn", fifth, "--yes"), expected)


async def test_too_little_disk_is_refused(ready: Settings, fifth: str, links: list[str]) -> None:
    """A change that needs more than --disk-free is refused; without it the plan says that the space is unknown."""
    words = ("add", "db4", "--dsn", fifth)
    await refused(ready, (*words, "--disk-free", "1000", "--yes"), "not enough disk")
    said = await run_program(ready, "plan", *words, "--json")
    assert any("--disk-free" in note for note in said.document["notes"])


async def test_an_unreachable_shard_stops_a_change(ready: Settings) -> None:
    """While a shard is unreachable, a topology is not published to any shard."""
    dead = "postgresql://me:secret@127.0.0.1:1/d"
    dsns = {item.name: item.dsn for item in ready.shard_dsns} | {"db3": dead}
    blind = ready.model_copy(update={"shards": SecretStr(" ".join(f"{n}={d}" for n, d in dsns.items()))})
    before = await state_of(ready)
    said = await run_program(blind, "drain", "db1", "--yes")
    assert said.code != 0
    assert "shard db3 refuses connections" in said.err
    assert await state_of(ready) == before


async def test_a_half_made_shard_stops_no_other_command(ready: Settings, five: Settings) -> None:
    """A database that an interrupted `add` left without identity is ignored until the next `add` uses it."""
    assert (await run_program(five, "status")).code == 0
    said = await run_program(five, "add", "db4", "--yes")
    assert said.code == 0, said.err
    assert (await run_program(five, "history", "--json")).document["entries"][0]["outcome"] == "published"


# -- pause, resume, cancel ----------------------------------------------------------------------------------------


async def slots_left(settings: Settings) -> int:
    fleet = await Fleet.connect(settings)
    try:
        snapshot = await fleet.observe()
        return plan(snapshot.ownership, snapshot.placement).slots
    finally:
        await fleet.close()


async def test_pause_stops_and_resume_goes_on(ready: Settings, links: list[str]) -> None:
    """A paused migrator starts no move, says so, and finishes after `resume`; on SIGTERM it exits with 0."""
    assert (await run_program(ready, "pause", "--yes")).code == 0
    one_line(await run_program(ready, "pause", "--yes"), "paused already")
    assert (await run_program(ready, "drain", "db2", "--yes")).code == 0
    left = await slots_left(ready)
    process = await begin(ready, "run", "--grace-s", "0")
    try:

        async def says_paused() -> bool:
            found = (await run_program(ready, "status", "--json")).document
            return bool(found["migrator_runs"] and found["migrator"]["state"] == "paused")

        await until(says_paused)
        assert await slots_left(ready) == left
        assert "PAUSED" in (await run_program(ready, "status")).out
        assert (await run_program(ready, "resume", "--yes")).code == 0

        async def is_over() -> bool:
            return await slots_left(ready) == 0

        await until(is_over)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), HANG_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_cancel_during_a_move_goes_back(ready: Settings, fifth: str, links: list[str]) -> None:
    """`cancel` during an addition returns all slots to where they were; cancelling again is refused."""
    before = [owner.shard for owner in (await owners(ready)) if owner]
    assert (await run_program(ready, "add", "db4", "--dsn", fifth, "--yes")).code == 0
    process = await begin(ready, "run", "--max-rows-per-second", "1", "--grace-s", "0")
    try:

        async def has_begun() -> bool:
            return any(owner.shard == "db4" for owner in await owners(ready) if owner)

        await until(has_begun)
        said = await run_program(ready, "cancel", "--yes", "--json")
        assert said.code == 0, said.err
        assert said.document["shards"]["db4"]["draining"] is True
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), HANG_S)
    await settle(ready)
    assert [owner.shard for owner in (await owners(ready)) if owner] == before
    one_line(await run_program(ready, "cancel", "--yes"), "nothing to cancel")
    assert (await run_program(ready, "verify")).code == 0


async def owners(settings: Settings) -> Any:
    fleet = await Fleet.connect(settings)
    try:
        return (await fleet.observe()).ownership.owners
    finally:
        await fleet.close()


async def test_cancel_asks_every_shard_for_what_was_before(ready: Settings, fifth: str) -> None:
    """`cancel` finds the earlier topology also if the new shard, which does not have it, sorts first by name."""
    assert (await run_program(ready, "add", "aa", "--dsn", fifth, "--yes")).code == 0
    said = await run_program(ready, "cancel", "--yes", "--json")
    assert said.code == 0, said.err
    assert said.document["shards"]["aa"]["draining"] is True


# -- status and watch ---------------------------------------------------------------------------------------------


async def test_watch_follows_to_the_end_in_plain_lines(ready: Settings, links: list[str]) -> None:
    """`drain --watch` in a pipe prints plain lines while a migrator works, and ends when the shard has left the
    topology and may be switched off, which is some time after its last slot has left it."""
    process = await begin(ready, "run", "--grace-s", "2")
    try:
        said = await run_program(ready, "drain", "db1", "--yes", "--watch")
        assert said.code == 0, said.err
        assert "slots left" in said.out
        assert "db1 may be switched off when its old rows are deleted" in said.out
        assert "every slot is where the ring wants it" in said.out.splitlines()[-2]
        status = json.loads((await run_program(ready, "status", "--json")).out)
        assert "db1" not in [shard["name"] for shard in status["shards"]]
        assert said.out.splitlines()[-1] == "finished: drain db1"
        assert "\x1b" not in said.out
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), HANG_S)


@pytest.mark.parametrize(
    ("words", "ended_by", "outcome"),
    [
        (("drain", "db0"), ("cancel",), "cancelled"),
        (("weight", "db1", "2"), ("weight", "db1", "1"), "cancelled"),
        (("apply", "drain", "db2"), ("drain", "db3"), "replaced"),
    ],
)
async def test_watch_ends_by_what_became_of_its_own_change(
    ready: Settings, words: tuple[str, ...], ended_by: tuple[str, ...], outcome: str
) -> None:
    """A change that is cancelled or replaced elsewhere ends its `--watch` with exit code 3 and that word, also if
    nothing is left to move, and `history` says the same."""
    watching = await begin(ready, *words, "--yes", "--watch")
    what = " ".join(word for word in words if word != "apply")

    async def is_published() -> bool:
        return f"{what} (published: topology 2)" in (await run_program(ready, "history")).out

    await until(is_published)
    assert (await run_program(ready, *ended_by, "--yes")).code == 0
    out, err = await asyncio.wait_for(watching.communicate(), HANG_S)
    assert watching.returncode == 3, err
    assert err.decode() == f"snapurl-reshard: {what} (topology 2) was {outcome} by topology 3\n"
    assert b"finished" not in out
    # Nothing had moved, so that a cancelled change leaves every slot where it belongs.
    newer, older = (await run_program(ready, "history", "--json")).document["entries"]
    assert (older["what"], older["outcome"]) == (what, outcome)
    assert newer["outcome"] == ("finished" if outcome == "cancelled" else "published")


async def test_a_finished_change_stays_finished(ready: Settings) -> None:
    """`history` calls a change finished that was brought about before the next one was published, and `--watch
    --json` ends with the outcome."""
    process = await begin(ready, "run", "--grace-s", "0")
    try:
        said = await run_program(ready, "weight", "db1", "0.99", "--yes", "--watch", "--json")
        assert said.code == 0, said.err
        last = json.loads(said.out.splitlines()[-1])
        assert last["change"] == {"topology_version": 2, "outcome": "finished"}
        assert last["settled"] is True
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), HANG_S)
    assert (await run_program(ready, "weight", "db1", "2", "--yes")).code == 0
    assert (await run_program(ready, "pause", "--yes")).code == 0
    entries = (await run_program(ready, "history", "--json")).document["entries"]
    assert [(entry["what"], entry["outcome"]) for entry in entries] == [
        ("pause", "done"),
        ("weight db1 2", "published"),
        ("weight db1 0.99", "finished"),
    ]
    assert "weight db1 2 (published: topology 3)" in (await run_program(ready, "history")).out


async def test_status_says_that_no_migrator_runs(ready: Settings) -> None:
    """Without a migrator, `status` still shows every shard, and the command that starts a migrator."""
    said = await run_program(ready, "status")
    assert said.code == 0
    assert "start one with `snapurl-reshard run`" in said.out
    for name in ("db0", "db1", "db2", "db3"):
        assert name in said.out


async def test_the_ring_of_the_api_shows_what_the_migrator_says(
    ready: Settings, links: list[str], tmp_path: Path
) -> None:
    """`/api/v1/ring` shows no progress before a migrator has run; then it shows slots, rows and pauses like
    `status`, and whether moves are paused."""
    async with running(ready, tmp_path) as service:
        client = service.api
        assert (await client.get("/api/v1/ring")).json()["reshard"] is None
        assert (await run_program(ready, "drain", "db1", "--yes")).code == 0
        process = await begin(ready, "run", "--grace-s", "0")
        shown: dict[str, Any] = {}

        async def is_shown() -> bool:
            nonlocal shown
            shown = (await client.get("/api/v1/ring")).json()["reshard"] or {}
            return shown.get("topology_version") == 3 and shown["state"] == "idle"  # db1 was removed

        await until(is_shown)
        process.terminate()
        await process.wait()
        status = json.loads((await run_program(ready, "status", "--json")).out)["migrator"]
        assert shown["pauses"] == status["pauses"]
        assert shown["slots_left"] == 0 and shown["pauses"]["count"] > 0
        assert shown["lag_rows"] == status["lag_rows"] == 0
        assert "last_error" not in shown, "it may name addresses"
        for command in ("pause", "resume"):
            assert (await run_program(ready, command, "--yes")).code == 0

            async def is_applied(paused: bool = command == "pause") -> bool:
                ring = (await client.get("/api/v1/ring")).json()
                return bool(ring["paused"] is paused)

            await until(is_applied)


# -- verify, cleanup, doctor --------------------------------------------------------------------------------------


async def test_cleanup_deletes_what_is_older_than_the_grace_period(ready: Settings, links: list[str]) -> None:
    """`cleanup` deletes released rows only after the grace period; owned rows are kept."""
    assert (await run_program(ready, "drain", "db1", "--yes")).code == 0
    process = await begin(ready, "run", "--grace-s", "3600")

    async def is_over() -> bool:
        return await slots_left(ready) == 0

    try:
        await until(is_over)
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), HANG_S)
    kept = (await run_program(ready, "cleanup", "--grace-s", "3600", "--yes", "--json")).document
    assert kept["slots"] == 0
    assert kept["waiting"] > 0
    gone = (await run_program(ready, "cleanup", "--grace-s", "0", "--yes", "--json")).document
    assert gone["slots"] == kept["waiting"]
    assert gone["rows"] > 0
    connection = await asyncpg.connect(ready.shard_dsns[1].dsn)
    assert await connection.fetchval("SELECT count(*) FROM links") == 0
    await connection.close()
    assert (await run_program(ready, "verify")).code == 0


async def owned_slot(direct: dict[str, Any], name: str) -> int:
    slot = await direct[name].fetchval("SELECT min(slot) FROM slots WHERE state = 'owned'")
    return int(slot)


async def kinds(settings: Settings, *words: str) -> list[tuple[str, bool]]:
    said = await run_program(settings, "doctor", *words, "--json")
    found = [(item["kind"], item["mended"]) for item in said.document["findings"]]
    assert (said.code == 0) == all(mended for _, mended in found)
    return found


async def plant_stray(direct: dict[str, Any], code: str, into: str) -> None:
    await direct[into].execute(
        "INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token)"
        " VALUES ($1, $2, 1, 'https://example.org/', '{}', 302, now(), '', gen_random_uuid())",
        slot_of(code),
        code,
    )


async def test_rows_that_were_never_owned_are_found_and_deleted(
    ready: Settings, direct: dict[str, Any], links: list[str]
) -> None:
    """A row in a slot that its shard never owned fails `verify`; `doctor --fix` deletes only that row."""
    of = await owners(ready)
    code = next(code for code in links if of[slot_of(code)].shard == "db0")
    await plant_stray(direct, code, "db2")
    said = await run_program(ready, "verify", "--json")
    assert said.code == 1
    assert any("db2 has rows" in line for line in said.document["wrong"])
    assert await kinds(ready) == [("strays", False)]
    assert await direct["db2"].fetchval("SELECT count(*) FROM links WHERE code = $1", code) == 1
    assert await kinds(ready, "--fix", "--yes") == [("strays", True)]
    assert await direct["db2"].fetchval("SELECT count(*) FROM links WHERE code = $1", code) == 0
    assert await direct["db0"].fetchval("SELECT count(*) FROM links WHERE code = $1", code) == 1
    assert (await run_program(ready, "verify")).code == 0
    assert (
        (await run_program(ready, "history", "--json"))
        .document["entries"][0]["what"]
        .startswith("doctor --fix")
    )


async def test_a_slot_with_two_owners_goes_to_the_higher_epoch(
    ready: Settings, direct: dict[str, Any]
) -> None:
    """Two owners fail `verify`; `doctor` says which one is right, and `--fix` makes the other release the slot."""
    slot = await owned_slot(direct, "db1")
    await direct["db1"].execute("UPDATE slots SET epoch = 5 WHERE slot = $1", slot)
    await direct["db3"].execute("INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', 3)", slot)
    said = await run_program(ready, "verify")
    assert said.code == 1
    assert "db1@5 and db3@3" in said.out
    said = await run_program(ready, "doctor")
    assert said.code == 1
    assert "believe db1" in said.out
    assert "snapurl-reshard doctor --fix" in said.out
    assert await kinds(ready, "--fix", "--yes") == [("two-owners", True)]
    row = await direct["db3"].fetchrow("SELECT state, epoch, peer FROM slots WHERE slot = $1", slot)
    assert tuple(row) == ("released", 5, "db1")
    assert await direct["db1"].fetchval("SELECT state FROM slots WHERE slot = $1", slot) == "owned"
    assert (await run_program(ready, "verify")).code == 0


async def test_two_owners_at_one_epoch_are_left_alone(ready: Settings, direct: dict[str, Any]) -> None:
    """If it is unknown which owner is right, `doctor --fix` changes nothing and says how to choose."""
    slot = await owned_slot(direct, "db1")
    await direct["db3"].execute("INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', 1)", slot)
    assert await kinds(ready, "--fix", "--yes") == [("two-owners", False)]
    assert await direct["db3"].fetchval("SELECT state FROM slots WHERE slot = $1", slot) == "owned"


async def test_a_slot_without_owner_is_explained(ready: Settings, direct: dict[str, Any]) -> None:
    """A slot without owner fails `verify`; `doctor` names its last source and target, and the SQL to repair it."""
    slot = await owned_slot(direct, "db1")
    await direct["db1"].execute(
        "UPDATE slots SET state = 'released', peer = 'db2', epoch = 2 WHERE slot = $1", slot
    )
    assert (await run_program(ready, "verify")).code == 1
    said = await run_program(ready, "doctor", "--fix", "--yes", "--json")
    assert said.code == 1
    (finding,) = said.document["findings"]
    assert finding["kind"] == "no-owner"
    assert "db1 gave them to db2" in finding["what"]
    statement = finding["command"].partition(": UPDATE")[2]
    await direct["db1"].execute("UPDATE" + statement)
    assert (await run_program(ready, "verify")).code == 0


async def test_a_topology_that_is_not_everywhere_is_spread(ready: Settings, direct: dict[str, Any]) -> None:
    """`doctor --fix` completes a publication of a topology that was killed half-way."""
    assert (await run_program(ready, "weight", "db0", "1.5", "--yes")).code == 0
    await direct["db3"].execute("DELETE FROM topology WHERE version = 2")
    found = await kinds(ready, "--fix", "--yes")
    assert found == [("topology", True), ("idle", False)]
    assert await direct["db3"].fetchval("SELECT max(version) FROM topology") == 2


async def test_a_hand_off_that_nobody_works_on_is_finished(
    ready: Settings, direct: dict[str, Any], links: list[str]
) -> None:
    """A slot left frozen by a killed migrator fails `verify`; `doctor --fix` completes its hand-off."""
    slot = await owned_slot(direct, "db1")
    await direct["db1"].execute(
        "UPDATE slots SET state = 'frozen', peer = 'db2', move_token = gen_random_uuid() WHERE slot = $1",
        slot,
    )
    assert (await run_program(ready, "verify")).code == 1
    assert await kinds(ready) == [("half-way", False)]
    assert await kinds(ready, "--fix", "--yes") == [("half-way", True)]
    assert await direct["db1"].fetchval("SELECT state FROM slots WHERE slot = $1", slot) == "owned"
    assert (await run_program(ready, "verify")).code == 0


async def test_doctor_changes_nothing_unless_asked(ready: Settings, direct: dict[str, Any]) -> None:
    """`doctor` and `doctor --fix --dry-run` change nothing, and `--fix` without --yes needs a terminal."""
    slot = await owned_slot(direct, "db1")
    await direct["db1"].execute("UPDATE slots SET epoch = 5 WHERE slot = $1", slot)
    await direct["db3"].execute("INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', 3)", slot)
    before = await state_of(ready)
    assert await kinds(ready) == [("two-owners", False)]
    assert await kinds(ready, "--fix", "--dry-run") == [("two-owners", False)]
    one_line(await run_program(ready, "doctor", "--fix"), "--yes")
    assert await state_of(ready) == before
