"""`snapurl up`: a complete local cluster in the foreground."""

from __future__ import annotations

import asyncio
import secrets
import socket
from functools import partial
from pathlib import Path
from time import monotonic

import click

from snapurl.config import Settings, load_settings
from snapurl.keys import PlainKey, create_key, list_keys
from snapurl.local.binaries import BinarySource
from snapurl.local.cluster import SHARDS, LocalCluster
from snapurl.local.start_requests import serve_start_requests
from snapurl.model import Right
from snapurl.run.healthcheck import Address, http_status, own_address
from snapurl.run.serve import (
    WORKER_STOP_S_MAX,
    leave,
    listening,
    metrics_directory,
    prepare,
    worker_children,
)
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
from snapurl.telemetry.logs import endless_task
from snapurl.telemetry.metrics_port import bind
from snapurl.telemetry.multiprocess import merge_dead

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
    changes = {**cluster.environ(), "SNAPURL_SHARDS": await _shards_in_use(cluster)}
    if "anonymous_creation" not in settings.model_fields_set:
        changes["SNAPURL_ANONYMOUS_CREATION"] = "true"
    local = load_settings(shards=changes["SNAPURL_SHARDS"], redis_url=changes["SNAPURL_REDIS_URL"])
    key = await unless_stopped(stop, _prepare(local, cluster.home))
    if key is None:
        return 0
    with (
        bind(settings.metrics_host, settings.metrics_port) as metrics_listener,
        metrics_directory(cluster.home / "metrics") as metrics,
    ):
        environ = environ_with({**changes, "PROMETHEUS_MULTIPROC_DIR": str(metrics)})
        consumer = Child("click consumer", python_argv("-m", "snapurl.clicks"), environ)
        workers = worker_children(settings, listener, metrics_listener, metrics, changes)
        url = own_address(settings).url
        inside = Address(*metrics_listener.getsockname()[:2]).url
        migrator = Child("migrator", python_argv("-m", MIGRATOR_MODULE, "run", "--service-url", url), environ)
        stages = [Stage(workers, WORKER_STOP_S_MAX), Stage((consumer, migrator), CONSUMER_STOP_S_MAX)]
        supervisor = Supervisor(
            stages,
            on_exit=partial(merge_dead, metrics),
            before_stop=partial(leave, settings, listener, stages[0]),
        )
        tasks = [
            asyncio.create_task(_greet(local, cluster, key, inside)),
            endless_task(partial(serve_start_requests, cluster), "start requests"),
        ]
        try:
            return await supervisor.run(stop)
        finally:
            await cancel_and_wait(*tasks)


async def _shards_in_use(cluster: LocalCluster) -> str:
    """Returns SNAPURL_SHARDS without servers of an unfinished `add`: those are empty."""
    used = []
    for name, dsn in cluster.dsns.items():
        if name in SHARDS or await has_identity(name, dsn):
            used.append(f"{name}={dsn}")
    return " ".join(used)


async def _prepare(settings: Settings, home: Path) -> str:
    await prepare(settings)
    return await admin_key(settings, home)


async def admin_key(settings: Settings, home: Path) -> str:
    """Returns the admin key stored in `home`; creates one if there is none or the cluster does not know it."""
    file = home / "admin.key"
    stored = PlainKey.parse(file.read_text().strip()) if file.exists() else None
    if stored and any(stored.matches(key) for key in await list_keys(settings) if key.revoked_at is None):
        return str(stored)
    made = await create_key(settings, "admin", [Right.ADMIN], "none")
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(f"{made}\n")
    return made


async def _greet(settings: Settings, cluster: LocalCluster, key: str, inside: str) -> None:
    """Prints the banner once the service is ready. `inside` is the URL of the metrics port."""
    ready = await _is_ready(settings)
    click.echo(banner(settings, cluster, key, inside))
    if not ready:
        click.echo(f"Not ready yet: {inside}/health/ready says why.", err=True)


async def _is_ready(settings: Settings) -> bool:
    deadline = monotonic() + READY_S_MAX
    while monotonic() < deadline:
        if await http_status(own_address(settings), "/health/ready") == 200:
            return True
        await asyncio.sleep(_POLL_S)
    return False


def banner(settings: Settings, cluster: LocalCluster, key: str, inside: str) -> str:
    """Returns the banner: URLs, admin key, and three commands to try, with an alias that is not taken."""
    url = settings.public_url
    alias = "try-" + "".join(secrets.choice(_ALIAS_ALPHABET) for _ in range(4))
    body = f'{{"url": "https://example.org/a/long/address", "alias": "{alias}"}}'
    return f"""
SnapURL is up at {url}   (API: {url}/docs)

  running     {cluster.describe()}, {settings.workers} workers
  data        {cluster.home}
  metrics     {inside}/metrics   (state: {inside}/health/ready)
  admin key   {key}   (kept in {cluster.home / "admin.key"})

Try it:

  curl -s {url}/api/v1/links -H 'Content-Type: application/json' -d '{body}'
  curl -i {url}/{alias}
  curl -s {url}/api/v1/links/{alias}/stats -H 'X-Api-Key: {key}'

Ctrl-C stops everything; the data stay.
"""
