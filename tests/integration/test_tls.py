"""TLS to PostgreSQL and Redis with a generated CA: it works, or one line says why not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import trustme
from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.run.healthcheck import http_status, own_address
from tests.integration.http.service import running
from tests.integration.http.test_clicks import clicks_of, consuming
from tests.support.requirements import skip_without
from tests.support.roles import Finished, connected, dsn_as, environ_of, make_login, run_program
from tests.support.waits import PATIENT, until

SECRET = "n0body-may-see-this"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Authority:
    """A CA and a file with its certificate."""

    ca: trustme.CA
    file: Path

    @classmethod
    def make(cls, file: Path) -> Authority:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(file))
        file.chmod(0o644)
        return cls(ca, file)

    def certify(self, directory: Path, host: str = HOST, *, valid: bool = True) -> None:
        """Writes `server.crt` and `server.key` to the directory, readable for its owner."""
        not_after = datetime.now(UTC) + timedelta(days=1 if valid else -1)
        made = self.ca.issue_cert(host, not_before=not_after - timedelta(days=9), not_after=not_after)
        made.private_key_pem.write_to_path(str(directory / "server.key"))
        for number, pem in enumerate(made.cert_chain_pems):
            pem.write_to_path(str(directory / "server.crt"), append=number > 0)
        owner = directory.stat()
        for file in ("server.key", "server.crt"):
            (directory / file).chmod(0o600)
            os.chown(directory / file, owner.st_uid, owner.st_gid)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca") / "ca.pem")


@pytest.fixture(scope="module")
async def servers(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalCluster]:
    """Yields servers with a good certificate, with each kind of bad one, and without TLS, and a plain Redis."""
    home = tmp_path_factory.mktemp("tls")
    home.chmod(0o755)
    names = ("expired", "good", "misnamed", "plain")
    async with LocalCluster(home, names, durable=False, loopback=True) as cluster:
        for name in names[:3]:
            data = home / name / "data"
            authority.certify(data, "db.example.org" if name == "misnamed" else HOST, valid=name != "expired")
            with (data / "postgresql.conf").open("a") as conf:
                conf.write("ssl = on\n")
            await cluster.shard(name).stop()
            try:
                await cluster.shard(name).start()
            except ConfigError as error:
                skip_without("a PostgreSQL with TLS", str(error))
        yield cluster


@asynccontextmanager
async def tls_redis(binary: str, directory: Path, authority: Authority, **how: object) -> AsyncIterator[str]:
    """Runs a Redis that accepts only TLS, and yields its URL without a CA file."""
    authority.certify(directory, **how)  # type: ignore[arg-type]
    port, password = free_port(set()), SECRET
    config = directory / "tls.conf"
    config.write_text(
        f"bind {HOST}\nport 0\ntls-port {port}\ntls-cert-file {directory}/server.crt\nsave ''\n"
        f"tls-key-file {directory}/server.key\ntls-auth-clients no\nrequirepass {password}\ndir {directory}\n"
    )
    process = await asyncio.create_subprocess_exec(
        binary, str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    url = f"rediss://:{password}@{HOST}:{port}/0"

    async def answers() -> bool:
        if process.returncode is not None:
            assert process.stdout is not None
            skip_without("a Redis with TLS", repr((await process.stdout.read())[-200:]))
        try:
            async with Redis.from_url(url + "?ssl_cert_reqs=none&ssl_check_hostname=false") as client:
                return bool(await client.ping())
        except RedisError:
            return False

    try:
        await until(answers)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def over_tls(dsn: str, file: Path | str | None, mode: str = "verify-full") -> str:
    return f"{dsn}?sslmode={mode}" + (f"&sslrootcert={quote(str(file))}" if file else "")


def settings_of(cluster: LocalCluster, dsn: str, home: Path, redis_url: str | None = None) -> Settings:
    return load_settings(shards=f"db0={dsn}", redis_url=redis_url or cluster.redis_url, home=home, **PATIENT)


# -- it works -----------------------------------------------------------------------------------------------------


async def test_everything_over_tls(servers: LocalCluster, authority: Authority, tmp_path: Path) -> None:
    """Service, consumer and the operator's command work over TLS, with the names of both servers verified."""
    dsn = over_tls(servers.shard("good").dsn(), authority.file)
    async with tls_redis(str(servers.redis.binary.server), tmp_path, authority) as url:
        trusting = f"{url}?ssl_ca_certs={quote(str(authority.file))}"
        settings = settings_of(servers, dsn, tmp_path, trusting)
        async with running(settings, tmp_path) as service, consuming(service):
            link = await service.shorten()
            assert (await service.api.get(f"/{link['code']}")).status_code == 302
            assert await until(lambda: clicks_of(service, link["code"])) == 1
            assert (await service.api.get("/health/ready")).json()["status"] == "ok"
            async with connected(servers.shard("good").dsn() + "?sslmode=disable") as owner:
                rows = await owner.fetch(
                    "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                    "WHERE application_name = 'snapurl'"
                )
            assert rows and all(row["ssl"] for row in rows)
            assert (await run_program(settings, "snapurl", "health", "--clicks")).text == "ready\n"
            assert (await run_program(settings, "snapurl-reshard", "status")).code == 0


# -- it does not: PostgreSQL --------------------------------------------------------------------------------------


COMMANDS = (
    ("snapurl", "serve"),
    ("snapurl", "migrate"),
    ("snapurl", "keys", "list"),
    ("snapurl", "health", "--clicks"),
    ("snapurl-reshard", "status"),
    ("snapurl-reshard", "plan", "add", "db4", "--dsn", "postgresql://u@127.0.0.1:1/x"),
)


def is_one_line(said: Finished, line: str) -> None:
    """Asserts that a command failed with an exit code and this one line, without stack trace or secret."""
    assert said.code in (1, 2), said
    assert said.text.count("\n") == 1 and line in said.text, said
    assert "Traceback" not in said.text and SECRET not in said.text


async def refused_alike(
    settings: Settings, line: str, commands: tuple[tuple[str, ...], ...] = COMMANDS
) -> None:
    variables = {"SNAPURL_PORT": str(free_port(set())), "HOME": str(settings.home)}
    for words in commands:
        is_one_line(await run_program(settings, words[0], *words[1:], **variables), line)


@pytest.mark.parametrize(
    ("server", "trusted", "line"),
    [
        ("good", "other", "shard db0 has a certificate that is not from the CA that is trusted"),
        ("expired", "ours", "shard db0 has a certificate that has expired"),
        ("misnamed", "ours", "shard db0 has a certificate that is for another host name"),
        ("plain", "ours", "shard db0 does not speak TLS, which its DSN asks for"),
        ("good", "missing", "the DSN of shard db0: the file that sslrootcert names does not exist"),
        ("good", "empty", "shard db0 does not speak TLS in the way that is asked of it"),
        ("good", None, "the DSN of shard db0 names no sslrootcert to verify it by"),
    ],
)
async def test_a_certificate_that_is_not_trusted(
    servers: LocalCluster, authority: Authority, tmp_path: Path, server: str, trusted: str | None, line: str
) -> None:
    """Every command prints the same line: wrong CA, expired, another host, no TLS, missing or bad CA file."""
    (tmp_path / "empty.pem").write_text("nothing\n")
    file = {
        "ours": authority.file,
        "other": Authority.make(tmp_path / "other.pem").file,
        "missing": tmp_path / "missing.pem",
        "empty": tmp_path / "empty.pem",
        None: None,
    }[trusted]
    dsn = over_tls(dsn_as(servers.shard(server).dsn(), "somebody", SECRET), file)
    await refused_alike(settings_of(servers, dsn, tmp_path), line)


async def test_a_wrong_password(servers: LocalCluster, authority: Authority, tmp_path: Path) -> None:
    """A wrong password gets the same line as an unknown user."""
    dsn = over_tls(dsn_as(servers.shard("good").dsn(), "snapurl", SECRET), authority.file)
    await refused_alike(
        settings_of(servers, dsn, tmp_path), "shard db0 refuses the user or password of its DSN"
    )


async def test_a_user_without_rights(servers: LocalCluster, authority: Authority, tmp_path: Path) -> None:
    """A user without rights gets a line with the missing GRANT, also for the right to connect."""
    dsn = servers.shard("good").dsn()
    settings = settings_of(servers, over_tls(dsn, authority.file), tmp_path)
    assert (await run_program(settings, "snapurl", "migrate")).code == 0
    await make_login(settings, "nobody_login")
    async with connected(dsn) as owner:
        await owner.execute(f"ALTER ROLE nobody_login PASSWORD '{SECRET}'")
    nobody = settings_of(servers, over_tls(dsn_as(dsn, "nobody_login", SECRET), authority.file), tmp_path)
    await refused_alike(nobody, "GRANT snapurl_service (for snapurl-reshard: snapurl_migrator) TO that user")
    async with connected(dsn) as owner:
        await owner.execute("REVOKE CONNECT ON DATABASE snapurl FROM PUBLIC")
        try:
            await refused_alike(
                nobody, "does not let the user of its DSN connect: GRANT it CONNECT", COMMANDS[:2]
            )
        finally:
            await owner.execute("GRANT CONNECT ON DATABASE snapurl TO PUBLIC")


async def test_a_newcomer_that_is_not_trusted(
    servers: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    """`plan add` and `add` refuse an untrusted new shard with the reason, and the cluster is not changed."""
    settings = settings_of(servers, servers.shard("good").dsn(), tmp_path)
    assert (await run_program(settings, "snapurl", "migrate")).code == 0
    dsn = over_tls(dsn_as(servers.shard("expired").dsn(), "somebody", SECRET), authority.file)
    for words in (("plan", "add", "db4", "--dsn", dsn), ("add", "db4", "--dsn", dsn, "--yes")):
        said = await run_program(settings, "snapurl-reshard", *words)
        assert said.code == 2 and SECRET not in said.text and "Traceback" not in said.text
        assert "shard db4 has a certificate that has expired" in said.text.splitlines()[-1]


async def test_one_shard_of_several_is_left_out(
    servers: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    """With an expired certificate on one shard the service starts without it, and the metrics port says why."""
    good, expired = (servers.shard(name).dsn() for name in ("good", "expired"))
    for dsn in (good, expired):
        async with connected(dsn.rpartition("/")[0] + "/postgres") as superuser:
            await superuser.execute("DROP DATABASE IF EXISTS two")
            await superuser.execute("CREATE DATABASE two")
    one, two = (dsn.rpartition("/")[0] + "/two" for dsn in (good, expired))
    listed = f"db0={one} db1={two}"
    plain = load_settings(shards=listed, redis_url=servers.redis_url, home=tmp_path)
    assert (await run_program(plain, "snapurl", "migrate")).code == 0
    listed = f"db0={over_tls(one, authority.file)} db1={over_tls(two, authority.file)}"
    port = free_port(set())
    metrics_port = free_port({port})
    settings = load_settings(shards=listed, redis_url=servers.redis_url, home=tmp_path, port=port)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "snapurl", "serve"),
        env=environ_of(
            settings, SNAPURL_PORT=str(port), SNAPURL_WORKERS="1", SNAPURL_METRICS_PORT=str(metrics_port)
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None
            return await http_status(own_address(settings), "/health/ready") == 200

        await until(is_ready)
        async with httpx.AsyncClient() as client:
            body = (await client.get(f"http://{HOST}:{metrics_port}/health/ready")).json()
        assert body["status"] == "degraded"
        assert "certificate that has expired" in str(body)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert "Traceback" not in out.decode()


# -- it does not: Redis -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "trusted", "line"),
    [
        ({}, "other", "Redis has a certificate that is not from the CA that is trusted"),
        ({"valid": False}, "ours", "Redis has a certificate that has expired"),
        ({"host": "redis.example.org"}, "ours", "Redis has a certificate that is for another host name"),
    ],
)
async def test_a_redis_that_is_not_trusted(
    servers: LocalCluster,
    authority: Authority,
    tmp_path: Path,
    how: dict[str, object],
    trusted: str,
    line: str,
) -> None:
    """With an untrusted Redis the service works degraded; it and the consumer's health check report the reason."""
    file = authority.file if trusted == "ours" else Authority.make(tmp_path / "other.pem").file
    settings = settings_of(servers, servers.shard("good").dsn(), tmp_path)
    async with tls_redis(str(servers.redis.binary.server), tmp_path, authority, **how) as url:
        settings = settings_of(servers, servers.shard("good").dsn(), tmp_path, f"{url}?ssl_ca_certs={file}")
        is_one_line(await run_program(settings, "snapurl", "health", "--clicks"), line)
        async with running(settings, tmp_path) as service:
            await service.shorten()
            body = await service.details()
            assert body["status"] == "degraded" and line.removeprefix("Redis ") in str(body)
        log = service.workers[0].log.read_text()
        assert line in log and SECRET not in log and "Traceback" not in log


async def test_tls_asked_of_a_redis_without(servers: LocalCluster, tmp_path: Path) -> None:
    """With a TLS URL for a Redis without TLS, the error says that it does not answer over TLS."""
    url = servers.redis_url.replace("redis://", "rediss://")
    settings = settings_of(servers, servers.shard("good").dsn(), tmp_path, url)
    said = await run_program(settings, "snapurl", "health", "--clicks")
    assert said.code == 1 and said.text.startswith("Redis do") and said.text.count("\n") == 1
    assert url.partition("@")[0].rpartition(":")[2] not in said.text


@pytest.mark.parametrize(
    ("url", "line"),
    [
        (f"redis://:{SECRET}/x@127.0.0.1:6379/0", "SNAPURL_REDIS_URL cannot be read"),
        (f"http://:{SECRET}@127.0.0.1:6379/0", "SNAPURL_REDIS_URL cannot be read"),
        (f"rediss://:{SECRET}@127.0.0.1:1/0?ssl_ca_cert=x", "SNAPURL_REDIS_URL cannot be read"),
        (
            f"rediss://:{SECRET}@127.0.0.1:1/0?ssl_ca_certs=/none",
            "the file of ssl_ca_certs does not exist",
        ),
    ],
)
async def test_a_redis_url_that_cannot_be_used(
    servers: LocalCluster, tmp_path: Path, url: str, line: str
) -> None:
    """Service, consumer and health check print one line about an unusable Redis URL, without any part of it."""
    settings = settings_of(servers, servers.shard("good").dsn(), tmp_path, url)
    assert (await run_program(settings, "snapurl", "migrate")).code == 0
    variables = {"SNAPURL_PORT": str(free_port(set())), "SNAPURL_WORKERS": "1"}
    for words in (("health", "--clicks"), ("clicks",), ("serve",)):
        is_one_line(await run_program(settings, "snapurl", *words, **variables), line)


async def test_a_password_of_redis_that_is_wrong(servers: LocalCluster, tmp_path: Path) -> None:
    """A wrong Redis password is reported as such."""
    url = f"redis://:{SECRET}@{HOST}:{servers.redis.port}/0"
    settings = settings_of(servers, servers.shard("good").dsn(), tmp_path, url)
    is_one_line(
        await run_program(settings, "snapurl", "health", "--clicks"), "Redis refuses the password of its URL"
    )
