"""The scripts, variables, secrets and logins of docker-compose.yml, run without containers."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError

from snapurl.config import load_settings
from snapurl.local.binaries import find_redis
from snapurl.local.free_ports import free_port
from snapurl.store.cluster.migrate import migrate_all
from tests.failover.servers import PASSWORD, Machine, Server
from tests.support.deployed import (
    ROOT,
    composed,
    environ,
    filled,
    image_environ,
    make_secrets,
    mount_secrets,
    secret_file,
)
from tests.support.requirements import program, skip_without
from tests.support.roles import Finished
from tests.support.waits import HANG_S, until

HOST = "127.0.0.1"
ODD = " p@ss:w/o%rd#?'\"\\\\n ü "
INIT = ROOT / "deploy/compose/init-shard.sh"
MODULES = {"snapurl": "snapurl", "snapurl-probe": "snapurl.probe", "snapurl-reshard": "tools.cli"}
TABLES = """
    SELECT string_agg(x, E'\\n' ORDER BY x) FROM (
        SELECT format('%s.%s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) AS x
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT format('%s %s', indexrelid::regclass, pg_get_indexdef(indexrelid))
          FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT conname || pg_get_constraintdef(oid)
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT format('%s %s %s', version, name, checksum) FROM schema_migrations
    ) AS everything"""


@dataclass
class Deployment:
    """A deployment on one host: secrets as the operator creates them, and servers instead of containers."""

    home: Path
    machine: Machine
    variables: dict[str, str] = field(default_factory=dict)
    shards: dict[str, Server] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def secret(self, name: str) -> str:
        return (self.home / secret_file(name)).read_text().rstrip("\n")

    def set_secret(self, name: str, value: str) -> None:
        file = self.home / secret_file(name)
        file.chmod(0o600)
        file.write_text(value)

    def environ(self, service: str, **variables: str) -> dict[str, str]:
        """Returns the environment of the container of `service`, with paths and addresses of this machine."""
        described = composed()["services"][service]
        mounted = mount_secrets(described, self.home, self.home / f"run-{service}")
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{name: value for name, value in image_environ().items() if name.startswith("SNAPURL_")},
            **environ(described, self.variables),
            "SNAPURL_SECRETS_DIR": str(mounted),
            **variables,
        }

    async def shard(self, name: str) -> Server:
        """Starts a server like the PostgreSQL image, with a superuser and an empty database."""
        server = self.shards[name] = self.machine.server(name)
        await server.start()
        return server

    async def init(self, name: str, password: str = PASSWORD, **variables: str) -> Finished:
        """Runs the init script. In the image it connects over a Unix socket, here with port and password."""
        described = composed()["services"][name]
        process = await asyncio.create_subprocess_exec(
            *("sh", str(INIT)),
            env={
                "PATH": os.environ["PATH"],
                **environ(described),
                **{"PGHOST": HOST, "PGPORT": str(self.shards[name].port), "PGPASSWORD": password},
                "SECRETS": str(mount_secrets(described, self.home, self.home / f"run-{name}")),
                "MIGRATIONS": str(ROOT / "migrations"),
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), HANG_S)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode())

    def address(self, name: str) -> str:
        return f"postgresql://{HOST}:{self.shards[name].port}/snapurl"

    def dsn(self, shard: str, user: str, secret: str) -> str:
        password = quote(self.secret(secret), safe="")
        return self.address(shard).replace("//", f"//{user}:{password}@")

    async def ask(
        self, shard: str, query: str, *, user: str = "snapurl", secret: str = "superuser_password"
    ) -> Any:
        """Returns the value of a statement that it executes as that user."""
        connection = await asyncpg.connect(self.dsn(shard, user, secret))
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def say(self, service: str, *words: str, **variables: str) -> Finished:
        """Runs a command like `docker compose exec` or `run` in the container of `service`, and waits for it."""
        process = await self._run(service, words, subprocess.PIPE, variables)
        out, _ = await asyncio.wait_for(process.communicate(), HANG_S)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode())

    async def start(self, service: str, *words: str, **variables: str) -> None:
        """Runs a service with its command or another one until the end of the test, with its output in its log."""
        with self.log(service).open("wb") as log:
            await self._run(service, words or composed()["services"][service]["command"], log, variables)

    def log(self, service: str) -> Path:
        return self.home / f"{service}.log"

    async def becomes(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits until the condition holds. If it never does, fails with the logs of the services."""
        try:
            await until(condition)
        except AssertionError as error:
            logs = "\n".join(file.read_text()[-2_000:] for file in sorted(self.home.glob("*.log")))
            raise AssertionError(f"{error}:\n{logs}") from None

    async def _run(
        self, service: str, words: Sequence[str], out: IO[bytes] | int, variables: Mapping[str, str]
    ) -> Process:
        program = composed()["services"][service].get("entrypoint", ["snapurl"])
        if words[0] not in MODULES:
            words = (*program, *words)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", MODULES[words[0]], *words[1:]),
            env=self.environ(service, **variables),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        self.processes.append(process)
        return process

    async def stop(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self.processes))
        await self.machine.stop()


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    if program("psql") is None:  # part of the PostgreSQL image; the init script needs it
        skip_without("psql")
    tmp_path.chmod(0o755)
    made = Deployment(tmp_path, Machine(tmp_path))
    make_secrets(tmp_path)
    yield made
    await made.stop()


# -- shards -------------------------------------------------------------------------------------------------------


async def test_the_init_script_makes_logins_that_can_do_their_work_and_no_more(
    deployment: Deployment,
) -> None:
    """Owner, service and migrator can log in with their secrets and have only the rights that they need."""
    await deployment.shard("db0")
    for name in ("superuser", "owner", "service", "migrator"):
        deployment.set_secret(f"{name}_password", f"{name}{ODD}\n")
    said = await deployment.init("db0")
    assert said == Finished(0, "")
    api = {"user": "snapurl_api", "secret": "service_password"}
    resharder = {"user": "snapurl_resharder", "secret": "migrator_password"}
    owner = {"user": "snapurl_owner", "secret": "owner_password"}
    for login in (api, resharder, owner):
        assert await deployment.ask("db0", "SELECT count(*) FROM links", **login) == 0
        assert (
            await deployment.ask("db0", "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", **login)
            is False
        )
        for statement in ("CREATE ROLE x", "CREATE DATABASE x", "SELECT pg_read_file('/etc/passwd')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await deployment.ask("db0", statement, **login)
    for login, statement in (
        (api, "DELETE FROM links"),
        (api, "UPDATE slots SET epoch = epoch"),
        (api, "CREATE TABLE x ()"),
        (api, "CREATE TEMPORARY TABLE x ()"),
        (resharder, "CREATE TABLE x ()"),
        (resharder, "DELETE FROM schema_migrations"),
        (resharder, "DROP TABLE links"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await deployment.ask("db0", statement, **login)
    await deployment.ask("db0", "DELETE FROM links", **resharder)
    assert (
        await deployment.ask(
            "db0",
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relowner <> 'snapurl_owner'::regrole",
        )
        == 0
    )
    with pytest.raises(asyncpg.InvalidPasswordError):
        await deployment.ask("db0", "SELECT 1", user="snapurl_api", secret="migrator_password")
    by_script = await deployment.ask("db0", TABLES)
    other = (await deployment.shard("db1")).dsn()
    await migrate_all(load_settings(shards=f"db1={other}"))
    connection = await asyncpg.connect(other)
    assert by_script == await connection.fetchval(TABLES)
    await connection.close()


async def test_the_init_script_can_be_run_again(deployment: Deployment) -> None:
    """After a repeated run with another password only the new one works; nothing else is changed."""
    await deployment.shard("db0")
    assert await deployment.init("db0") == Finished(0, "")
    before = await deployment.ask("db0", TABLES)
    old = {name: deployment.secret(name) for name in ("superuser_password", "service_password")}
    for name in old:
        deployment.set_secret(name, f"another {name}")
    assert await deployment.init("db0", old["superuser_password"]) == Finished(0, "")
    assert await deployment.ask("db0", "SELECT 1", user="snapurl_api", secret="service_password") == 1
    deployment.set_secret("service_password", old["service_password"])
    with pytest.raises(asyncpg.InvalidPasswordError):
        await deployment.ask("db0", "SELECT 1", user="snapurl_api", secret="service_password")
    assert await deployment.ask("db0", TABLES) == before


async def test_the_init_script_shows_no_password(deployment: Deployment) -> None:
    """No password is in the script's output or in the statement log; a missing secret is a one-line error."""
    server = await deployment.shard("db0")
    said = await deployment.init("db0", PGOPTIONS="-c log_statement=all -c log_min_duration_statement=0")
    assert said.code == 0
    log = (server.data.parent / "server.log").read_text()
    assert "CREATE TABLE schema_migrations" in log  # proves that statements were logged
    # The failing statement contains the owner's password.
    first = deployment.secret("superuser_password")
    failed = await deployment.init("db0", first, PGOPTIONS="-c default_transaction_read_only=on")
    assert failed.code != 0 and "cannot execute ALTER ROLE in a read-only transaction" in failed.text
    log = (server.data.parent / "server.log").read_text()
    assert "cannot execute ALTER ROLE" in log
    secrets = [
        deployment.secret(f"{name}_password") for name in ("superuser", "owner", "service", "migrator")
    ]
    assert not [secret for secret in secrets if secret in log or secret in said.text or secret in failed.text]
    deployment.set_secret("migrator_password", "")
    missing = await deployment.init("db0", first)
    assert (
        missing.code == 1 and missing.text.count("\n") == 1 and "migrator_password is missing" in missing.text
    )


async def test_a_volume_of_the_release_before_is_taken_over(deployment: Deployment) -> None:
    """If the superuser owns the tables, a manual run of the script gives them to the owner, and all logins work."""
    server = await deployment.shard("db0")
    before = load_settings(shards=f"db0={server.dsn()}")
    await migrate_all(before)
    assert await deployment.init("db0") == Finished(0, "")
    deployment.variables["SHARDS"] = f"db0={deployment.address('db0')}"
    assert (await deployment.say("migrate", "snapurl", "migrate")).text == "Every shard is up to date.\n"
    assert (await deployment.say("api", "snapurl", "keys", "create", "me")).code == 0
    assert (await deployment.say("migrator", "snapurl-reshard", "doctor")).code == 0
    owners = "SELECT array_agg(DISTINCT proowner::regrole::text) FROM pg_proc WHERE proname ~ '_v[0-9]+$'"
    assert await deployment.ask("db0", owners) == ["snapurl_owner"]


# -- Redis --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def redis_of(deployment: Deployment, **variables: str) -> AsyncIterator[tuple[Process, int]]:
    """Runs Redis as its container does, on a port of this machine."""
    described = composed()["services"]["redis"]
    binary = Path(find_redis().server)
    bin_directory = deployment.home / "bin"
    bin_directory.mkdir(exist_ok=True)
    if not (bin_directory / "redis-server").exists():
        (bin_directory / "redis-server").symlink_to(binary)
    port, data = free_port(set()), deployment.home / "redis"
    data.mkdir(exist_ok=True)
    command = [word.replace("/etc/snapurl", str(ROOT / "deploy/compose")) for word in described["command"]]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--port", str(port), "--bind", HOST, "--dir", str(data)),
        env={
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            **environ(described),
            "SECRETS": str(mount_secrets(described, deployment.home, deployment.home / "run-redis")),
            "CONFIG": str(ROOT / "deploy/compose/redis.conf"),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:

        async def answers() -> bool:
            assert process.returncode is None, await process.stdout.read() if process.stdout else ""
            try:
                async with client_of(deployment, port) as client:
                    return bool(await client.ping())
            except AuthenticationError:
                raise
            except (RedisError, OSError):
                return False

        await until(answers)
        yield process, port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def client_of(deployment: Deployment, port: int) -> Redis:
    return Redis(host=HOST, port=port, password=deployment.secret("redis_password"))


async def test_redis_takes_its_password_from_the_secret_and_shows_it_to_nobody(
    deployment: Deployment,
) -> None:
    """Redis reads any password from the secret; no argument or variable of the process contains it."""
    deployment.set_secret("redis_password", f"{ODD}\n")
    async with redis_of(deployment) as (process, port):
        place = Path(f"/proc/{process.pid}")
        if place.exists():
            assert b"redis-server" in (place / "cmdline").read_bytes()  # the shell was replaced by exec
            assert ODD.encode() not in (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
        with pytest.raises(AuthenticationError):
            await Redis(host=HOST, port=port).ping()
        check = composed()["services"]["redis"]["healthcheck"]["test"]
        assert check[0] == "CMD-SHELL"
        if program("redis-cli") is None:
            skip_without("redis-cli", "the health check is not tried")
        shell = filled(check[1]).replace("/run/secrets", str(deployment.home / "run-redis"))
        for command, code in (
            (shell.replace("redis-cli", f"redis-cli -p {port}"), 0),
            (shell.replace("redis-cli", "redis-cli -p 1"), 1),
        ):
            tried = await asyncio.create_subprocess_exec("sh", "-c", command, stderr=subprocess.DEVNULL)
            assert await tried.wait() == code


async def test_redis_at_its_bound_keeps_what_it_has(deployment: Deployment) -> None:
    """A full Redis refuses writes, evicts nothing, and still has its data after a kill."""
    async with redis_of(deployment, REDIS_MAXMEMORY="4mb") as (process, port):
        async with client_of(deployment, port) as client:
            config = await client.config_get("*")
            assert config["maxmemory"] == str(4 * 2**20) and config["maxmemory-policy"] == "noeviction"
            assert (
                config["appendonly"] == "yes" and config["appendfsync"] == "always" and config["save"] == ""
            )
            await client.xadd("clicks", {"clicks": "{}"})
            await client.set("last number of a worker", "7", ex=86_400)
            written = 0
            with pytest.raises(OutOfMemoryError):
                while True:
                    await client.set(f"cache {written}", "x" * 10_000, px=300_000)
                    written += 1
            assert written > 10
            assert await client.dbsize() == written + 2
        process.kill()
        await process.wait()
    async with (
        redis_of(deployment, REDIS_MAXMEMORY="8mb") as (_, port),
        client_of(deployment, port) as client,
    ):
        assert await client.xlen("clicks") == 1 and await client.get("last number of a worker") == b"7"


async def test_redis_does_not_start_without_its_secret(deployment: Deployment) -> None:
    """Without its secret Redis does not start, rather than run without a password."""
    deployment.set_secret("redis_password", "")
    with pytest.raises(AssertionError, match="redis_password is missing or empty"):
        async with redis_of(deployment):
            pass


# -- everything ---------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_the_whole_deployment_works_and_grows(deployment: Deployment) -> None:
    """Init scripts, `migrate`, service, consumer and migrator work with their own variables, secrets and logins.
    Two commands add db4, which gets links, and every link is found and its clicks counted."""
    for name in ("db0", "db1"):
        await deployment.shard(name)
        assert await deployment.init(name) == Finished(0, "")
    deployment.variables["SHARDS"] = " ".join(f"{name}={deployment.address(name)}" for name in ("db0", "db1"))
    async with redis_of(deployment) as (_, redis_port):
        deployment.variables["REDIS_URL"] = f"redis://{HOST}:{redis_port}/0"
        said = await deployment.say("migrate", "snapurl", *composed()["services"]["migrate"]["command"])
        assert said == Finished(0, "Every shard is up to date.\n")
        port = str(free_port(set()))
        inside = {name: free_port({int(port)}) for name in ("api", "clicks", "migrator")}
        at = {name: ("--metrics-port", str(number)) for name, number in inside.items()}
        here = {"SNAPURL_HOST": HOST, "SNAPURL_PORT": port, "SNAPURL_METRICS_PORT": str(inside["api"])}
        await deployment.start("api", **here)
        await deployment.start("clicks", "snapurl", "clicks", *at["clicks"])
        running = ("snapurl-reshard", "run", "--service-url", f"http://{HOST}:{port}", *at["migrator"])
        await deployment.start("migrator", *running)
        key = (
            await deployment.say("api", "snapurl", "keys", "create", "me", "--right", "admin")
        ).text.strip()
        async with httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}", headers={"X-Api-Key": key}, timeout=HANG_S
        ) as api:

            async def is_ready() -> bool:
                try:
                    answer = await api.get("/health/ready")
                except httpx.HTTPError as error:
                    print(repr(error))
                    return False
                print(answer.status_code, answer.text)  # shows the reason if it never becomes ready
                return answer.status_code == 200 and answer.json()["status"] == "ok"

            await deployment.becomes(is_ready)
            assert (await deployment.say("api", "snapurl", "health", **here)) == Finished(0, "ready\n")
            assert (await deployment.say("clicks", "snapurl", "health", "--clicks")) == Finished(0, "ready\n")
            assert (await deployment.say("api", "snapurl-probe", **here)) == Finished(0, "ready\n")
            for name in ("clicks", "migrator"):
                url = f"http://127.0.0.1:{inside[name]}/health/ready"

                async def is_healthy(name: str = name, url: str = url) -> bool:
                    return await deployment.say(name, "snapurl-probe", url) == Finished(0, "ready\n")

                await deployment.becomes(is_healthy)
            links = [{"url": f"https://example.org/{number}"} for number in range(200)]
            codes = [link["code"] for link in (await created(api, links))]

            await deployment.shard("db4")
            assert await deployment.init("db4") == Finished(0, "")
            added = await deployment.say(
                "migrator", "snapurl-reshard", "add", "db4", "--dsn", deployment.address("db4"), "--yes"
            )
            assert added.code == 0, added

            async def has_grown() -> bool:
                verified = await deployment.say("migrator", "snapurl-reshard", "verify")
                shown = (await api.get("/api/v1/ring")).json()["shards"]
                slots = {shard["name"]: shard["slots"] for shard in shown}
                return verified.code == 0 and bool(slots.get("db4"))

            await deployment.becomes(has_grown)
            assert await deployment.ask(
                "db4", "SELECT count(*) FROM links", user="snapurl_api", secret="service_password"
            )
            for code in codes:
                assert (await api.get(f"/{code}")).status_code == 302

            async def are_counted() -> bool:
                return all(
                    [(await api.get(f"/api/v1/links/{code}/stats")).json()["clicks"] == 1 for code in codes]
                )

            await deployment.becomes(are_counted)
            # As in `.env` from now on: migrations of the next release apply to db4, too.
            deployment.variables["MORE_SHARDS"] = f"db4={deployment.address('db4')}"
            assert (await deployment.say("migrate", "snapurl", "migrate")).code == 0


async def created(api: httpx.AsyncClient, links: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    answer = await api.post("/api/v1/links/bulk", json={"links": links})
    assert answer.status_code in (200, 201, 207), answer.text
    body = answer.json()
    found: list[dict[str, Any]] = body["links"] if "links" in body else body["results"]
    return [item.get("link", item) for item in found]


async def test_a_shard_without_its_tables_is_not_added_by_the_migrator(deployment: Deployment) -> None:
    """The migrator may not create tables: `add` of a shard without them is refused, and the error says who may."""
    await deployment.shard("db0")
    assert await deployment.init("db0") == Finished(0, "")
    await deployment.shard("db4")
    assert await deployment.init("db4", MIGRATIONS=str(deployment.home)) != Finished(0, "")
    deployment.variables["SHARDS"] = f"db0={deployment.address('db0')}"
    assert (await deployment.say("migrate", "snapurl", "migrate")).code == 0
    refused = await deployment.say(
        "migrator", "snapurl-reshard", "add", "db4", "--dsn", deployment.address("db4"), "--yes"
    )
    assert refused.code != 0 and "may not create tables there" in refused.text
