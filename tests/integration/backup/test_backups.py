"""`snapurl backup` and `snapurl restore` on real shards."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.backup.archive import BackupRefused, opened, verified_parts
from snapurl.backup.decisions import KEPT
from snapurl.backup.dump import make_backup
from snapurl.backup.restore import restore_backup
from snapurl.config import Settings
from snapurl.store.cluster.bootstrap import ensure_cluster
from tests.integration.store.conftest import Store
from tests.integration.store.test_bootstrap import with_shards
from tests.integration.tools.conftest import add_fifth, direct, fifth, five, new_link, ready, settle, store
from tests.support.databases import Databases
from tests.support.waits import unless_hung, until

__all__ = ["direct", "fifth", "five", "new_link", "ready", "store"]

NUMBERS = count()
ODD = 'tab\t, "quotes", \\backslash\\ , two\nlines\r, {braces}, NULL, \\N and größer'
LINKS = 300
CODES = [f"c{number:04}" for number in range(LINKS)]

FILL = {
    "accounts": "INSERT INTO accounts SELECT s, 'acc_' || c, pg_current_xact_id(), $3 || c, now(), '' "
    "FROM {rows}",
    "api_keys": "INSERT INTO api_keys SELECT s, 'key_' || c, pg_current_xact_id(), c, sha256(c::bytea), "
    "'{{create,read}}', '', now(), NULL, 'acc_' || c, '', now() FROM {rows}",
    "links": "INSERT INTO links (slot, code, version, url, title, tags, redirect_status, created_at, deleted_at, "
    "owner, token, note, max_clicks, password_hash, rules, imported_clicks) SELECT s, c, 3, 'https://a.example/', "
    "$3, ARRAY[$3, ''], 302, now(), CASE WHEN n % 7 = 0 THEN now() END, 'acc_' || c, gen_random_uuid(), "
    "nullif($3, CASE WHEN n % 2 = 0 THEN $3 END), 5, '$argon2id$x', '[]', n FROM {rows}",
    "link_uses": "INSERT INTO link_uses SELECT s, c, pg_current_xact_id(), n FROM {rows}",
    "link_shares": "INSERT INTO link_shares SELECT s, c, pg_current_xact_id(), NULL, now(), '' FROM {rows}",
    "link_history": "INSERT INTO link_history SELECT s, c, n % 3, pg_current_xact_id(), 2, 'change', now(), 'k', "
    "jsonb_build_object('title', $3::text) FROM {rows}",
    "click_totals": "INSERT INTO click_totals SELECT s, c, pg_current_xact_id(), n + 1, n FROM {rows}",
    "click_months": "INSERT INTO click_months SELECT s, c, '2020-02-01', pg_current_xact_id(), n + 1, n, n, "
    '\'{{"r": {{"": 1}}}}\' FROM {rows}',
    "click_days": "INSERT INTO click_days SELECT s, c, '2024-02-29', pg_current_xact_id(), n + 1, n, n, NULL, $3 "
    "FROM {rows}",
    "imported_days": "INSERT INTO imported_days SELECT s, c, '2019-02-28', pg_current_xact_id(), n + 1, n "
    "FROM {rows}",
    "click_group_months": "INSERT INTO click_group_months SELECT s, 'tag', $3 || c, '2020-02-01', "
    "pg_current_xact_id(), n + 1, n, NULL FROM {rows}",
    "click_groups": "INSERT INTO click_groups SELECT s, 'tag', $3 || c, '2024-02-29', pg_current_xact_id(), "
    "n + 1, n, NULL, NULL FROM {rows}",
    "intents": "INSERT INTO intents SELECT s, c, pg_current_xact_id(), gen_random_uuid(), '\\x00ff', now() "
    "FROM {rows}",
    "webhooks": "INSERT INTO webhooks SELECT s, c, pg_current_xact_id(), 2, 'acc_' || c, 'https://a.example/', "
    "'{{link.created}}', $3, ARRAY[$3], NULL, now(), '', NULL, '', NULL FROM {rows}",
}
"""Per kept table a statement that gives each code a row."""

ROWS = "unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS u (s, c, n), (SELECT $3::text) t"


async def fill(direct: dict[str, Any]) -> None:
    """Gives each kept table rows on every shard, with what a text format could break."""
    assert FILL.keys() == KEPT.keys()
    for connection in direct.values():
        owned = {row["slot"] for row in await connection.fetch("SELECT slot FROM slots")}
        here = [code for code in CODES if slot_of(code) in owned]
        for statement in FILL.values():
            await connection.execute(statement.format(rows=ROWS), [slot_of(code) for code in here], here, ODD)


async def rows_of(settings: Settings) -> dict[str, list[str]]:
    """Returns the rows of each kept table of a cluster, those on the owners of their slots, without xid."""
    found: dict[str, list[str]] = {name: [] for name in KEPT}
    for item in settings.shard_dsns:
        connection = await asyncpg.connect(item.dsn)
        for table, rows in found.items():
            query = (
                f"SELECT (to_jsonb(t) - 'xid')::text FROM {table} t WHERE slot IN (SELECT slot FROM slots WHERE "
                "state = 'owned')"
            )
            rows += [row[0] for row in await connection.fetch(query)]
            rest = await connection.fetchval(f"SELECT count(*) FROM {table}")
            assert rest == len(await connection.fetch(query)), (
                "a row is on another shard than the owner of its slot"
            )
        await connection.close()
    return {table: sorted(rows) for table, rows in found.items()}


@pytest.fixture
async def empty(ready: Settings, databases: Databases, cluster: Any) -> AsyncIterator[Settings]:
    """Another cluster, of two shards and without a row."""
    name, shards = f"restored_{os.getpid()}_{next(NUMBERS)}", ["db1", "db2"]
    await databases.clone_migrated(name, shards)
    settings = with_shards(ready, {f"new{shard}": cluster.shard(shard).dsn(name) for shard in shards})
    await ensure_cluster(settings)
    yield settings
    await databases.drop(name, shards)


class Command:
    """`snapurl` in a process of its own, which can be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, settings: Settings, *words: str | Path) -> Command:
        environ = {**os.environ, "SNAPURL_SHARDS": settings.shards.get_secret_value()}
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "snapurl",
                *map(str, words),
                env=environ,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def end(self) -> tuple[int, str, str]:
        out, err = await unless_hung(self._process.communicate())
        return self._process.returncode or 0, out.decode(), err.decode()

    async def kill_at(self, connection: Any, table: str) -> None:
        """Kills it once it waits for `table`, which `connection` has locked, and lets go of that."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'snapurl-backup' AND datname = "
            "current_database() AND wait_event_type = 'Lock'"
        )

        async def waits() -> bool:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            return bool(await connection.fetchval(waiting))

        await until(waits)
        self._process.kill()
        await self.end()


async def test_a_cluster_comes_back_whole_with_other_shards(
    ready: Settings, direct: dict[str, Any], empty: Settings, tmp_path: Path
) -> None:
    """Every row of every kept table is in the new cluster, on the shard that owns its slot; twice is refused."""
    await fill(direct)
    before = await rows_of(ready)
    code, out, err = await (await Command.start(ready, "backup", tmp_path)).end()
    assert code == 0, err
    said = json.loads(out)
    file = Path(said["file"])
    assert said["rows"] == dict.fromkeys(KEPT, LINKS) and file.parent == tmp_path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(tmp_path.glob("*.part")) == []
    with opened(file) as archive:
        assert sum(rows for rows, _ in archive.manifest["slots"].values()) == LINKS * len(KEPT)
        assert [part.rows for part in verified_parts(archive, file)] == [part.rows for part in archive.parts]
        assert {int(slot) for slot in archive.manifest["slots"]} == set(map(slot_of, CODES))
    await restore_backup(empty, file)
    assert await rows_of(empty) == before
    for settings, why in ((empty, "restored here before"), (ready, "not empty")):
        with pytest.raises(BackupRefused, match=why):
            await restore_backup(settings, file)
    assert await rows_of(ready) == before


async def test_what_a_killed_backup_or_restore_leaves(
    ready: Settings, direct: dict[str, Any], empty: Settings, tmp_path: Path
) -> None:
    """A killed backup leaves no file that could be taken for one; a killed restore goes on where it was."""
    await fill(direct)
    file, draft = tmp_path / "all.backup", tmp_path / "all.backup.part"
    async with direct["db2"].transaction():
        await direct["db2"].execute("LOCK TABLE click_days")
        await (await Command.start(ready, "backup", file)).kill_at(direct["db2"], "click_days")
    assert not file.exists() and draft.exists()
    draft.rename(tmp_path / "torn")
    code, _, err = await (await Command.start(ready, "backup", "verify", tmp_path / "torn")).end()
    assert code == 1 and "not" in err and err.count("\n") == 1
    (tmp_path / "torn").rename(draft)
    await make_backup(ready, file)
    assert not draft.exists()

    target = await asyncpg.connect(empty.shard_dsns[1].dsn)
    async with target.transaction():
        await target.execute(
            "LOCK TABLE click_days IN SHARE MODE"
        )  # which lets it look whether there are rows
        await (await Command.start(empty, "restore", file)).kill_at(target, "click_days")
    assert await target.fetchval("SELECT count(*) FROM links") and not await target.fetchval(
        "SELECT count(*) FROM click_days"
    )
    marks = "SELECT outcome FROM audit WHERE what LIKE 'restore%'"
    assert (await target.fetchval(marks)).startswith("begun: ")
    code, _, err = await (await Command.start(empty, "restore", file)).end()
    assert code == 0, err
    assert await target.fetchval(marks) == "done"
    await target.close()
    assert await rows_of(empty) == await rows_of(ready)


async def test_a_damaged_backup_is_refused_before_anything_is_written(
    ready: Settings, direct: dict[str, Any], empty: Settings, tmp_path: Path
) -> None:
    """Cut anywhere, or with any byte changed, it is refused, and the cluster stays empty."""
    await fill(direct)
    file, bad = tmp_path / "all.backup", tmp_path / "bad"
    await make_backup(ready, file)
    whole = file.read_bytes()
    nothing = await rows_of(empty)
    for damage in (
        whole[: len(whole) // 2],
        whole[:-20_000],
        b"",
        whole[:700] + bytes([whole[700] ^ 1]) + whole[701:],
        whole.replace(b'"bytes": ', b'"bytes":  ', 1),
    ):
        bad.write_bytes(damage)
        with pytest.raises(BackupRefused):
            await restore_backup(empty, bad)
    assert await rows_of(empty) == nothing


async def test_a_slot_that_moves_is_in_the_backup_once(
    ready: Settings, store: Store, five: Settings, fifth: str, new_link: Any, tmp_path: Path
) -> None:
    """Each link acknowledged before a backup began is in it exactly once, while slots go to a new shard."""
    made: list[str] = []
    added, settling = asyncio.Event(), asyncio.Event()

    async def create() -> None:
        while not settling.is_set():
            link = new_link(f"m{next(NUMBERS)}")
            await store.links.create(link)
            made.append(link.code)

    async def move() -> None:
        fleet = await add_fifth(ready, five, fifth)
        await fleet.close()
        added.set()
        await settle(five)
        settling.set()

    async def back_up() -> list[tuple[set[str], list[str]]]:
        found = []
        await added.wait()
        while not settling.is_set():
            acknowledged, file = set(made), tmp_path / "moving.backup"
            await make_backup(five, file)
            with opened(file) as archive:
                links = [archive.rows(part) for part in archive.parts if part.table == "links"]
            codes = [line.split(b"\t")[1].decode() for rows in links for line in rows.splitlines()]
            found.append((acknowledged, codes))
        return found

    _, found, _ = await asyncio.gather(create(), back_up(), move())
    assert len(found) > 1
    for acknowledged, codes in found:
        assert len(codes) == len(set(codes)) and acknowledged <= set(codes) <= set(made)
