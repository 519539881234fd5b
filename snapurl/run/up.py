"""`snapurl up`: a complete local cluster in the foreground."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
from functools import partial
from shlex import quote
from time import monotonic

import click
from pydantic import SecretStr

from snapurl.config import PREFIX, Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.keys import PlainKey, create_key, list_keys
from snapurl.local.access import LocalUser
from snapurl.local.binaries import BinarySource
from snapurl.local.cluster import SHARDS, LocalCluster
from snapurl.local.start_requests import serving_start_requests
from snapurl.model import Right
from snapurl.private_files import write_private
from snapurl.run.healthcheck import Address, http_status, own_address
from snapurl.run.serve import (
    WORKER_STOP_S_MAX,
    leave,
    listening,
    metrics_directory,
    prepare,
    worker_children,
)
from snapurl.run.servers import servers_kept_running
from snapurl.run.supervisor import (
    Child,
    Stage,
    Supervisor,
    environ_with,
    python_argv,
    stop_signals,
    unless_stopped,
)
from snapurl.store.cluster.bootstrap import has_identity
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import configure
from snapurl.telemetry.metrics_port import bind
from snapurl.telemetry.multiprocess import merge_dead
from snapurl.ui.login_links import link_for

log = logging.getLogger("snapurl.up")

# The module of the installed command `snapurl-reshard`. `snapurl` may not import `tools`, so up starts it by name.
MIGRATOR_MODULE = "tools.cli"

CONSUMER_STOP_S_MAX = 1.5
READY_S_MAX = 60.0

_POLL_S = 0.1
_ALIAS_ALPHABET = "bcdfghjkmnpqrstvwxyz23456789"


async def up(settings: Settings, source: BinarySource = BinarySource.ANY) -> int:
    """Starts everything, prints where it is, and runs until a signal. Returns the exit code.

    Everything ends within 10 s of the signal: first the workers, then click consumer and migrator, then Redis and
    PostgreSQL. Raises ConfigError with one line.
    """
    configure(settings.log_level, settings.log_format)
    with listening(settings) as listener:
        async with stop_signals() as stop:
            cluster = LocalCluster(settings.home, source=source)
            click.echo(f"Starting PostgreSQL and Redis in {cluster.home} …")
            await unless_stopped(stop, cluster.start())
            if stop.is_set():
                await cluster.stop()  # it may just have started
                return 0
            try:
                return await _run(settings, cluster, listener, stop)
            finally:
                await cluster.stop()
                click.echo("Everything has stopped.")


async def _run(
    settings: Settings, cluster: LocalCluster, listener: socket.socket, stop: asyncio.Event
) -> int:
    used = await _shards_in_use(cluster)
    owner = load_settings(**cluster.settings(LocalUser.OWNER, used))
    service = load_settings(**cluster.settings(LocalUser.SERVICE, used))
    key = await unless_stopped(stop, _prepare(owner, service))
    if key is None:
        return 0
    anonymous = settings.anonymous_creation or "anonymous_creation" not in settings.model_fields_set
    as_service = _variables(cluster, LocalUser.SERVICE, used)
    as_service["SNAPURL_ANONYMOUS_CREATION"] = str(anonymous).lower()
    service = with_session_secret(service, create=True)
    as_service["SNAPURL_SESSION_SECRET"] = service.session_secret.get_secret_value()
    with (
        bind(settings.metrics_host, settings.metrics_port) as metrics_listener,
        metrics_directory(cluster.home / "metrics") as metrics,
    ):
        multiprocess = {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        workers = worker_children(settings, listener, metrics_listener, metrics, as_service)
        consumer = Child(
            "click consumer",
            python_argv("-m", "snapurl.clicks"),
            environ_with({**as_service, **multiprocess}),
        )
        inside = Address(*metrics_listener.getsockname()[:2]).url
        migrator = Child(
            "migrator",
            python_argv("-m", MIGRATOR_MODULE, "run", "--service-url", settings.local_url),
            environ_with({**_variables(cluster, LocalUser.MIGRATOR, used), **multiprocess}),
        )
        stages = [Stage(workers, WORKER_STOP_S_MAX), Stage((consumer, migrator), CONSUMER_STOP_S_MAX)]
        supervisor = Supervisor(
            stages,
            report=log.warning,
            on_exit=partial(merge_dead, metrics),
            before_stop=partial(leave, settings, listener, stages[0]),
        )
        greeting = asyncio.create_task(_greet(service, cluster, key, inside))
        try:
            async with serving_start_requests(cluster), servers_kept_running(cluster, report=log.warning):
                return await supervisor.run(stop)
        finally:
            await cancel_and_wait(greeting)


async def _shards_in_use(cluster: LocalCluster) -> list[str]:
    """Returns the names of the shards without servers of an unfinished `add`: those are empty."""
    return [name for name, dsn in cluster.dsns.items() if name in SHARDS or await has_identity(name, dsn)]


def _variables(cluster: LocalCluster, user: LocalUser, names: list[str]) -> dict[str, str]:
    """Returns the variables with which a process logs in to the shards as `user`."""
    settings = cluster.settings(user, names)
    return {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}


async def _prepare(owner: Settings, service: Settings) -> str:
    await prepare(owner)
    return await admin_key(service)


async def admin_key(settings: Settings) -> str:
    """Returns the admin key stored in the home; creates one if there is none or the cluster does not know it."""
    file = settings.admin_key_file
    stored = PlainKey.parse(file.read_text().strip()) if file.exists() else None
    listed, silent = await list_keys(settings)
    if stored and (silent or any(stored.matches(key) for key in listed if key.revoked_at is None)):
        return str(stored)
    made = await create_key(settings, "admin", [Right.ADMIN], "none")
    try:
        write_private(file, f"{made}\n")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return made


def admin_key_of(settings: Settings) -> str | None:
    """Returns the admin key of the local cluster, None if there is no such cluster."""
    try:
        return settings.admin_key_file.read_text().strip() or None
    except OSError:
        return None


def with_session_secret(settings: Settings, *, create: bool = False) -> Settings:
    """Returns the settings with the local cluster's own session secret, unless they have one.

    If the cluster has none yet, makes one where `create` says so. Raises ConfigError.
    """
    if settings.session_secret.get_secret_value():
        return settings
    file = settings.home.expanduser().resolve() / "session.secret"
    secret = file.read_text().strip() if file.exists() else ""
    if create and not secret:
        secret = secrets.token_urlsafe(32)
        try:
            write_private(file, f"{secret}\n")
        except OSError as error:
            raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return settings.model_copy(update={"session_secret": SecretStr(secret)})


async def _greet(settings: Settings, cluster: LocalCluster, key: str, inside: str) -> None:
    """Prints the banner once the service is ready. `inside` is the URL of the metrics port."""
    ready = await _is_ready(settings)
    click.echo(banner(settings, cluster, key if sys.stdout.isatty() else None, inside))
    if not ready:
        click.echo(f"Not ready yet: {inside}/health/ready says why.", err=True)


async def _is_ready(settings: Settings) -> bool:
    deadline = monotonic() + READY_S_MAX
    while monotonic() < deadline:
        if await http_status(own_address(settings), "/health/ready") == 200:
            return True
        await asyncio.sleep(_POLL_S)
    return False


def banner(settings: Settings, cluster: LocalCluster, key: str | None, inside: str) -> str:
    """Returns the banner: URLs, admin key, three commands to try with an alias that is not taken, a login link.

    Without `key` it says only where the key is kept: output that goes into a file is not always private.
    """
    url, file = settings.public_url, settings.admin_key_file
    plain = PlainKey.parse(key) if key else None
    dashboard = ""
    if settings.dashboard:
        where = (
            link_for(settings, plain.key_id, plain.secret_hash)
            if plain
            else "`snapurl login-link` prints a link"
        )
        dashboard = f"\nDashboard, logged in: {where}\n"
    alias = "try-" + "".join(secrets.choice(_ALIAS_ALPHABET) for _ in range(4))
    body = f'{{"url": "https://example.org/a/long/address", "alias": "{alias}"}}'
    return f"""
SnapURL is up at {url}   (API: {url}/docs)

  running     {cluster.describe()}, {settings.workers} workers
  data        {cluster.home}
  metrics     {inside}/metrics   (state: {inside}/health/ready)
  admin key   {f"{key}   (kept in {file})" if key else f"in {file}"}

Try it:

  curl -s {url}/api/v1/links -H 'Content-Type: application/json' -d '{body}'
  curl -i {url}/{alias}
  curl -s {url}/api/v1/links/{alias}/stats -H "X-Api-Key: {key or f"$(cat {quote(str(file))})"}"

Ctrl-C stops everything; the data stay.
{dashboard}"""
