"""Sessions of `snapurl-reshard` commands, each run as a separate process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from snapurl.config import Settings
from snapurl.model import LinkQuery
from tests.integration.clicks.test_clicks import environ
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.tools.conftest import settle
from tests.support.programs import PIPE, start
from tests.support.waits import HANG_S


@dataclass(frozen=True)
class Finished:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def reshard(settings: Settings, *words: str) -> Finished:
    variables = {**environ(settings), "SNAPURL_HOME": str(settings.home)}
    process = await start("tools.cli", *words, env=variables, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def version(settings: Settings) -> int:
    said: int = (await reshard(settings, "status", "--json")).json["topology_version"]
    return said


async def test_a_shard_is_planned_added_verified_and_drained(
    ready: Settings, fifth: str, store: Store, new_link: NewLinkMaker
) -> None:
    """After plan, add, verify, drain and verify, each link exists, and the history has every change."""
    codes = [f"c{n}" for n in range(200)]
    await store.links.create_many([new_link(code) for code in codes])
    plan = await reshard(ready, "plan", "add", "db4", "--dsn", fifth, "--json")
    assert plan.code == 0, plan.err
    assert 0.19 < plan.json["slots_to_move"] / 16_384 < 0.21
    assert await version(ready) == 1

    dry = await reshard(ready, "add", "db4", "--dsn", fifth, "--dry-run")
    assert (dry.code, await version(ready)) == (0, 1)
    added = await reshard(ready, "add", "db4", "--dsn", fifth, "--yes", "--json")
    assert added.code == 0, added.err
    assert added.json["topology_version"] == 2
    halfway = await reshard(ready, "verify")
    assert halfway.code == 1
    assert "not where the ring wants them" in halfway.out
    assert "no migrator" in (await reshard(ready, "doctor")).out
    await settle(ready)
    assert (await reshard(ready, "verify")).code == 0

    assert (await reshard(ready, "drain", "db0", "--yes")).code == 0
    await settle(ready)
    verified = await reshard(ready, "verify", "--json")
    assert (verified.code, verified.json) == (0, {"wrong": []})
    assert {link.code for link in (await store.links.page(LinkQuery(), 500)).links} == set(codes)
    entries = (await reshard(ready, "history", "--json")).json["entries"]
    assert [(entry["what"], entry["outcome"]) for entry in entries] == [
        ("drain db0", "finished"),
        ("add db4", "finished"),
    ]


async def test_pause_resume_and_cancel(ready: Settings, fifth: str) -> None:
    """`pause` stops moves before they begin, `resume` continues them, and `cancel` moves everything back."""
    assert (await reshard(ready, "add", "db4", "--dsn", fifth, "--yes")).code == 0
    assert (await reshard(ready, "pause", "--yes")).code == 0
    run = asyncio.create_task(settle(ready))
    async with asyncio.timeout(HANG_S):
        while (await reshard(ready, "status", "--json")).json["state"] != "paused":
            await asyncio.sleep(0.1)
    assert (await reshard(ready, "pause", "--yes")).code == 2
    assert (await reshard(ready, "resume", "--yes")).code == 0
    await run
    assert (await reshard(ready, "cancel", "--yes")).code == 2

    assert (await reshard(ready, "weight", "db4", "0.5", "--yes")).code == 0
    cancelled = await reshard(ready, "cancel", "--yes")
    assert cancelled.code == 0, cancelled.err
    await settle(ready)
    assert (await reshard(ready, "verify")).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["drain", "nope", "--yes"], "there is no shard 'nope'"),
        (["weight", "db0", "0", "--yes"], "weight must be above 0"),
        (["weight", "db0", "nan", "--yes"], "weight must be above 0"),
        (
            ["plan", "drain", "db0", "drain", "db1", "drain", "db2", "drain", "db3"],
            "is the last that is not draining",
        ),
        (["add", "db0", "--yes"], "is there already"),
        (["add", "db4", "--yes"], "say where the database of db4 is"),
        (["add", "db4", "--dsn", "postgresql://u:secret@127.0.0.1:1/x", "--yes"], "db4 refuses connections"),
        (["add", "db4", "--dsn", "nonsense", "--yes"], "must look like host:port/database"),
        (["cancel", "--yes"], "nothing to cancel"),
        (["resume", "--yes"], "is not paused"),
        (["drain", "db0"], "confirm with --yes"),
        (["plan", "frob"], "is no change"),
    ],
)
async def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    ready: Settings, words: list[str], message: str
) -> None:
    """An invalid change is refused with one line and a non-zero exit code, and nothing is changed."""
    said = await reshard(ready, *words)
    assert said.code != 0
    assert message in said.err
    assert said.err.count("\n") == 1
    assert "secret" not in said.err + said.out
    assert await version(ready) == 1


async def test_a_database_that_belongs_elsewhere_is_refused(
    ready: Settings, fifth: str, direct: dict[str, Any]
) -> None:
    """A database that is already a shard of this or another cluster cannot be added."""
    db1 = next(item.dsn for item in ready.shard_dsns if item.name == "db1")
    said = await reshard(ready, "add", "db4", "--dsn", db1, "--yes")
    assert said.code != 0
    assert "is shard db1 of this cluster already" in said.err
    assert (await reshard(ready, "add", "db4", "--dsn", fifth, "--disk-free", "1", "--yes")).code != 0
    assert await version(ready) == 1


async def test_doctor_names_and_mends(
    ready: Settings, store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """`doctor` finds stray rows, and two owners of a slot, of which the higher epoch wins; --fix repairs both."""
    await store.links.create(new_link("one"))
    (slot,) = [row["slot"] for row in await direct["db0"].fetch("SELECT slot FROM slots LIMIT 1")]
    await direct["db1"].execute("INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', 5)", slot)
    stray = (await direct["db3"].fetchrow("SELECT slot FROM slots LIMIT 1"))["slot"]
    await direct["db2"].execute(
        "INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token)"
        " VALUES ($1, 'stray', 1, 'https://x.example/', '{}', 302, now(), '', gen_random_uuid())",
        stray,
    )
    found = await reshard(ready, "doctor")
    assert found.code == 1
    assert f"slot {slot} is claimed by db0@1 and by db1@5" in found.out
    assert "db2 has rows of 1 slots" in found.out
    assert (await reshard(ready, "verify")).code == 1
    await reshard(ready, "doctor", "--fix", "--yes")
    await settle(ready)
    repaired = await reshard(ready, "verify")
    assert repaired.code == 0, repaired.out
    assert await direct["db2"].fetchval("SELECT count(*) FROM links WHERE code = 'stray'") == 0
