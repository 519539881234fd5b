"""No log, response, error, metric, topology or process list contains a password, whatever fails."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from snapurl.config import Settings
from snapurl.keys import create_key
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.integration.tools.conftest import fifth, ready
from tests.support.roles import PASSWORD, as_user, connected, environ_of, make_login, run_program
from tests.support.waits import HANG_S, until

__all__ = ["fifth", "ready"]

SECRET = "n0body-may-see-this"


@asynccontextmanager
async def program(settings: Settings, log: Path, *words: str, **variables: str) -> AsyncIterator[Process]:
    """Runs a program until the end of the test, with all its output in `log`."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            env=environ_of(settings, SNAPURL_LOG_LEVEL="debug", **variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def command_lines() -> bytes:
    """Returns the command lines of all processes, as any user of the machine can read them."""
    found = b""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += file.read_bytes()
        except OSError:
            continue
    return found


async def passwords(settings: Settings, password: str) -> None:
    """Changes the password of both users, and ends their sessions."""
    for item in settings.shard_dsns:
        async with connected(item.dsn) as owner:
            for user in ("secret_service", "secret_migrator"):
                await owner.execute(f"ALTER ROLE {user} PASSWORD '{password}'")
                await owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", user
                )


async def at_work(api: httpx.AsyncClient, inside: str, said: list[str]) -> None:
    """Sends one request of every kind, and keeps all responses."""
    asked = [
        api.post("/api/v1/links", json={"url": "https://example.org/"}),
        api.post(
            "/api/v1/links/bulk", json={"links": [{"url": f"https://example.org/{n}"} for n in range(20)]}
        ),
        api.get("/api/v1/links"),
        api.get("/nothing-there"),
        api.get("/health/ready"),
        api.get(f"{inside}/health/ready"),
        api.get(f"{inside}/metrics"),
    ]
    answers = await asyncio.gather(*asked)
    said += [f"{answer.status_code} {answer.headers} {answer.text}" for answer in answers]


async def test_nothing_that_goes_wrong_shows_a_password(
    settings: Settings, cluster: LocalCluster, tmp_path: Path
) -> None:
    """No password is shown when servers, logins, rights or statements fail during a move, even at level debug."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    key = await create_key(settings, "admin", ("create", "read", "change", "admin"), "none")
    await make_login(settings, "secret_service", "snapurl_service")
    await make_login(settings, "secret_migrator", "snapurl_migrator")
    await passwords(settings, SECRET)
    service = as_user(settings, "secret_service", SECRET)
    migrator = as_user(settings, "secret_migrator", SECRET)
    secrets = [SECRET, PASSWORD]
    secrets += [str(urlsplit(url).password) for url in (settings.shard_dsns[0].dsn, cluster.redis_url)]
    port, log, said = free_port(set()), tmp_path / "everything.log", [""]
    metrics_port = free_port({port})
    url, inside = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}"
    async with (
        program(
            service,
            log,
            "snapurl",
            "serve",
            SNAPURL_PORT=str(port),
            SNAPURL_METRICS_PORT=str(metrics_port),
            SNAPURL_WORKERS="2",
        ),
        program(service, log, "snapurl", "clicks"),
        program(migrator, log, "tools.cli", "run"),
        httpx.AsyncClient(base_url=url, headers={"X-Api-Key": key}, timeout=HANG_S) as api,
    ):

        async def is_ready() -> bool:
            try:
                answer = await api.get("/health/ready")
            except httpx.HTTPError:
                return False
            return answer.status_code == 200 and answer.json()["status"] == "ok"

        await until(is_ready)
        await at_work(api, inside, said)
        said.append((await run_program(migrator, "snapurl-reshard", "weight", "db0", "0.5", "--yes")).text)
        said.append(command_lines().decode(errors="replace"))

        async with connected(settings.shard_dsns[1].dsn) as owner:
            await owner.execute("REVOKE SELECT ON links FROM snapurl_service")
            await at_work(api, inside, said)
            await owner.execute("GRANT SELECT ON links TO snapurl_service")
            await owner.execute("ALTER FUNCTION link_create_v2 RENAME TO link_create_v0")  # its callers fail
            for _ in range(100):  # a generated code belongs to this shard in one case of four
                await at_work(api, inside, said)
                if any(answer.startswith("500") for answer in said):
                    break
            await owner.execute("ALTER FUNCTION link_create_v0 RENAME TO link_create_v2")
        assert any(answer.startswith("500") for answer in said)

        await passwords(settings, "another")
        await at_work(api, inside, said)
        for words in (["snapurl", "migrate"], ["snapurl-reshard", "status"], ["snapurl-reshard", "doctor"]):
            refused = await run_program(migrator, *words)
            assert refused.code == 2 and "refuses the user or password" in refused.text
            said.append(refused.text)
        await passwords(settings, SECRET)

        await cluster.shard("db2").kill()
        await cluster.redis.kill()
        await at_work(api, inside, said)
        said += [
            (await run_program(migrator, "snapurl-reshard", words)).text for words in ("status", "doctor")
        ]
        said.append((await run_program(service, "snapurl", "health", "--clicks")).text)
        said.append(command_lines().decode(errors="replace"))
        await cluster.shard("db2").start()
        await cluster.redis.start()
        await until(is_ready)

    for item in settings.shard_dsns:
        async with connected(item.dsn) as owner:
            for table in ("topology", "audit", "migrator", "cluster"):
                said += [str(row) for row in await owner.fetch(f"SELECT t::text FROM {table} t")]
    logged = log.read_text()
    assert "UndefinedFunction" in logged and "permission denied" in logged  # proves that the errors occurred
    for secret in secrets:
        for text in (*said, logged):
            assert secret not in text


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:pa/{SECRET}@127.0.0.1:1/x",
        f"postgresql://u:pa#{SECRET}@127.0.0.1:1/x",
        f"postgresql://u:pa?{SECRET}@127.0.0.1:1/x",
        f"postgresql://u:{SECRET}@[::1/x",
        f"postgresql://u:{SECRET}@127.0.0.1:99999/x",
        f"postgresql://u:{SECRET}@127.0.0.1:port/x",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslmode=nonsense",
        f"postgresql://u:{SECRET}@127.0.0.1:1/x?nonsense={SECRET}",
        f"postgresql://u@127.0.0.1:1/x?password={SECRET}&sslmode=disable",
        f"mysql://u:{SECRET}@127.0.0.1:1/x",
        f"postgresql://u:{SECRET} {SECRET}@127.0.0.1:1/x",
        f"postgresql://u:%{SECRET}@127.0.0.1:1/x",
    ],
)
async def test_a_dsn_that_cannot_be_used_is_not_shown(ready: Settings, tmp_path: Path, dsn: str) -> None:
    """An unusable DSN is refused and not shown, as the only shard, as one of several, and as one to add."""
    listed = ready.shards.get_secret_value()
    for shards in (f"db0={dsn}", listed.replace(ready.shard_dsns[0].dsn, dsn)):
        said = await run_program(ready, "snapurl", "migrate", SNAPURL_SHARDS=shards)
        assert SECRET not in said.text and "Traceback" not in said.text
        assert said.text
    said = await run_program(ready, "snapurl-reshard", "status", SNAPURL_SHARDS=f"db0={dsn}")
    assert said.code in (1, 2) and said.text.count("\n") == 1, said
    assert SECRET not in said.text and "Traceback" not in said.text
    said = await run_program(ready, "snapurl-reshard", "add", "db4", "--dsn", dsn, "--yes")
    assert said.code == 2 and SECRET not in said.text and "Traceback" not in said.text


async def test_a_shard_is_added_without_a_password_in_the_command_line(ready: Settings, fifth: str) -> None:
    """`add` needs only an address; if it has a password, a warning says that the process list shows it."""
    address = f"postgresql://{fifth.rpartition('@')[2]}"
    plan = await run_program(ready, "snapurl-reshard", "plan", "add", "db4", "--dsn", address)
    assert plan.code == 0, plan
    await make_login(ready, "secret_service")
    other = fifth.replace(urlsplit(fifth).netloc.rpartition("@")[0], f"secret_service:{PASSWORD}")
    shown = await run_program(ready, "snapurl-reshard", "plan", "add", "db4", "--dsn", other)
    assert "the password of db4 is visible in the list of processes" in shown.text
    assert PASSWORD not in shown.text
    assert (await run_program(ready, "snapurl-reshard", "add", "db4", "--dsn", address, "--yes")).code == 0
