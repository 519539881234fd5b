"""The command line `snapurl`: each command calls one function.

An error is one line on stderr. The exit code is 2 for a wrong call or an invalid configuration, 130 after Ctrl-C,
and 1 for any other error. Commands import what they need when they run, which keeps `snapurl --help` fast.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from time import monotonic
from typing import NoReturn

import click

from snapurl.commands.backups import backup, restore_file
from snapurl.commands.blocklist import blocklist
from snapurl.commands.clusters import configured_settings, settings_or_local
from snapurl.commands.exports import export
from snapurl.commands.imports import import_file
from snapurl.commands.links import links
from snapurl.commands.options import warn_of_missing
from snapurl.commands.stats import show_statistics
from snapurl.commands.webhooks import webhooks
from snapurl.config import Settings, load_settings, override
from snapurl.errors import ConfigError, SnapURLError, file_error, one_line
from snapurl.model import Account, ApiKey, Right

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_HOST = click.option("--host", help="Address to listen on. Default: SNAPURL_HOST.")
_PORT = click.option(
    "--port", type=click.IntRange(1, 65_535), help="Port to listen on. Default: SNAPURL_PORT."
)


@click.group(context_settings=HELP)
@click.version_option(package_name="snapurl")
def cli() -> None:
    """SnapURL: a URL shortener on PostgreSQL shards.

    Settings are environment variables that begin with SNAPURL_. `snapurl up` starts a complete local cluster.
    """


@cli.command()
@click.option(
    "--programs",
    type=click.Choice(["any", "path", "wheel"]),
    default="any",
    show_default=True,
    help="Where to find PostgreSQL and Redis: on PATH, in the installed wheels, or any: PATH if suitable, else the "
    "wheels.",
)
@_HOST
@_PORT
def up(programs: str, host: str | None, port: int | None) -> None:
    """Run a complete cluster on this machine.

    Starts PostgreSQL, Redis, the HTTP service, the click consumer and the migrator in the foreground. Data are kept
    in SNAPURL_HOME. Ctrl-C stops everything.
    """
    from snapurl.local.binaries import BinarySource
    from snapurl.run.up import up as run_up

    override(host=host, port=port)
    sys.exit(asyncio.run(run_up(load_settings(), BinarySource(programs))))


@cli.command()
@_HOST
@_PORT
def serve(host: str | None, port: int | None) -> None:
    """Run the HTTP service.

    Starts SNAPURL_WORKERS worker processes that listen on SNAPURL_HOST:SNAPURL_PORT.
    """
    from snapurl.run.serve import serve as run_serve

    override(host=host, port=port)
    sys.exit(asyncio.run(run_serve(configured_settings())))


@cli.command()
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Port that serves /metrics; 0: no port.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Address for --metrics-port; 0.0.0.0: all interfaces.",
)
def clicks(metrics_port: int, metrics_host: str) -> None:
    """Run the click consumer.

    Reads clicks from the stream in Redis and adds them to the counts in the shards. If several run, one works and
    the others stand by.
    """
    from snapurl.clicks.consumer import main as run_consumer

    sys.exit(run_consumer(metrics_port, metrics_host))


@cli.command()
def migrate() -> None:
    """Apply missing migrations to every shard.

    Initialises the cluster if all shards are empty, and grants the rights of the database roles.
    """
    from snapurl.local.access import LocalUser
    from snapurl.store.cluster.bootstrap import ensure_cluster
    from snapurl.store.cluster.migrate import grant_all, migrate_all
    from snapurl.store.cluster.shards import Shards

    async def run(settings: Settings) -> list[str]:
        lines = await migrate_all(settings)
        await ensure_cluster(settings)
        # A migration may require that every shard is attested, which workers of an older release cannot do.
        await (await Shards.connect(settings)).close()
        return [*lines, *await grant_all(settings)]

    click.echo(
        "\n".join(asyncio.run(run(settings_or_local(LocalUser.OWNER)))) or "Every shard is up to date."
    )


@cli.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice([right.value for right in Right]),
    default=("create", "read", "change"),
    show_default=True,
    help="A right of the key (see above). Repeat the option to grant several.",
)
@click.option(
    "--limit",
    default="",
    help="Rate limit for creating links, such as 600/minute, or none. Default: SNAPURL_LIMIT_CREATE; "
    "none for admin keys.",
)
@click.option(
    "--account",
    default="",
    metavar="NAME_OR_ID",
    help="Account whose links the key shares. Default: one of its own.",
)
def keys_create(name: str, rights: tuple[str, ...], limit: str, account: str) -> None:
    """Create an API key called NAME and print it.

    The key is shown only this once; SnapURL stores a hash of it.

    \b
    Rights:
      create   create links
      read     read, list and count the clicks of the links of the key's account
      change   change and delete the links of the key's account
      admin    all of these, for the links of all accounts
    """
    from snapurl.keys import create_key

    click.echo(asyncio.run(create_key(settings_or_local(), name, rights, limit, account)))


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys_list(as_json: bool) -> None:
    """List all API keys, never the secrets.

    In the column `account`, - is an account of the key's own; in `limit`, the default. `used` is when the key was
    last used.
    """
    from snapurl.keys import list_keys

    found, silent = asyncio.run(list_keys(settings_or_local()))
    warn_of_missing("keys", silent)
    if as_json:
        click.echo(json.dumps({"keys": list(map(_key_document, found)), "missing_shards": list(silent)}))
    else:
        _print_keys(found)


def _print_keys(found: Sequence[ApiKey]) -> None:
    heads = ("id", "account", "rights", "limit", "created", "used", "state", "name")
    _print_table([heads, *map(_key_row, found)])


def _key_row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.key_id,
        "-" if key.has_own_account else key.account,
        ",".join(sorted(key.rights)),
        key.limit or "-",
        f"{key.created_at:%Y-%m-%d}",
        f"{key.used_at:%Y-%m-%d}" if key.used_at else "-",
        "revoked" if key.revoked_at else "valid",
        key.name,
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, the first of which are the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _key_document(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.key_id,
        "name": key.name,
        "account": key.account,
        "rights": sorted(key.rights),
        "limit": key.limit or None,
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by or None,
        "last_used_at": key.used_at.isoformat() if key.used_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


@keys.command("revoke")
@click.argument("key", metavar="NAME_OR_ID")
def keys_revoke(key: str) -> None:
    """Revoke an API key.

    NAME_OR_ID is the id shown by `snapurl keys list`, or a name that no other valid key has. Workers stop accepting
    the key within 5 seconds. Its links stay with its account.
    """
    from snapurl.keys import revoke_key

    revoked = asyncio.run(revoke_key(settings_or_local(), key))
    click.echo(f"Revoked {revoked.key_id} ({revoked.name}).")


@cli.group()
def accounts() -> None:
    """Create, list and rename accounts.

    Links belong to an account, and all its keys share them. A key that is given no account has one of its own.
    """


@accounts.command("create")
@click.argument("name")
def accounts_create(name: str) -> None:
    """Create an account called NAME and print its id."""
    from snapurl.accounts import create_account

    click.echo(asyncio.run(create_account(settings_or_local(), name)).account_id)


@accounts.command("rename")
@click.argument("account", metavar="NAME_OR_ID")
@click.argument("name", metavar="NEW")
def accounts_rename(account: str, name: str) -> None:
    """Give an account the name NEW. Its id, links and keys stay.

    NAME_OR_ID is the account's name or id.
    """
    from snapurl.accounts import rename_account

    renamed = asyncio.run(rename_account(settings_or_local(), account, name))
    click.echo(f"{renamed.account_id} is called {renamed.name}.")


@accounts.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def accounts_list(as_json: bool) -> None:
    """List accounts.

    Not those that keys have of their own.
    """
    from snapurl.accounts import list_accounts

    found, silent = asyncio.run(list_accounts(settings_or_local()))
    warn_of_missing("accounts", silent)
    if as_json:
        listed = list(map(_account_document, found[::-1]))
        click.echo(json.dumps({"accounts": listed, "missing_shards": list(silent)}))
        return
    rows = [("id", "created", "name")]
    rows += [(item.account_id, f"{item.created_at:%Y-%m-%d}", item.name) for item in found[::-1]]
    _print_table(rows)


@accounts.command("members")
@click.argument("account", metavar="NAME_OR_ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def accounts_members(account: str, as_json: bool) -> None:
    """List the keys of an account.

    NAME_OR_ID is an account's name or id, or the id of a key that has an account of its own.
    """
    from snapurl.accounts import list_members

    found, (members, silent) = asyncio.run(list_members(settings_or_local(), account))
    warn_of_missing("keys", silent)
    if as_json:
        listed = list(map(_key_document, members[::-1]))
        click.echo(json.dumps({**_account_document(found), "keys": listed, "missing_shards": list(silent)}))
    else:
        _print_keys(members[::-1])


@accounts.command("transfer")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def accounts_transfer(source: str, target: str) -> None:
    """Give all links of one account to another.

    FROM and TO are names or ids of accounts. Deleted links are given too. If it is interrupted, run it again.
    """
    from snapurl.accounts import transfer_links

    began_s = monotonic()

    def progress(given: int, total: int) -> None:
        rate = given / max(monotonic() - began_s, 0.001)
        left = f", {(total - given) / rate:.0f} s left" if given else ""
        click.echo(f"{given:,} of {total:,} links, {rate:,.0f}/s{left}", err=True)

    given = asyncio.run(transfer_links(settings_or_local(), source, target, progress))
    click.echo(f"{given:,} links given.")


def _account_document(account: Account) -> dict[str, object]:
    return {
        "id": account.account_id,
        "name": account.name,
        "created_at": account.created_at.isoformat(),
        "created_by": account.created_by or None,
    }


@cli.command("login-link")
@click.argument("key", required=False)
def login_link(key: str | None) -> None:
    """Print a link that logs a browser in to the dashboard.

    KEY is the key to log in with, or its id; without it, the admin key of the local cluster. The link works once,
    within five minutes. It takes the SNAPURL_SESSION_SECRET of the workers.
    """
    from snapurl.run.up import admin_key_of, with_session_secret
    from snapurl.ui.login_links import make_login_link

    settings = with_session_secret(settings_or_local())
    key = key or admin_key_of(settings)
    if key is None:
        raise click.UsageError("name the key to log in with: `snapurl keys list` shows the ids")
    click.echo(asyncio.run(make_login_link(settings, key)))


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from snapurl.http.docs.site import make_site
    from snapurl.http.routes import ROUTES

    click.echo(json.dumps(json.loads(make_site(ROUTES, load_settings()).openapi()), indent=2))


@cli.command()
@click.option(
    "--clicks",
    "of_clicks",
    is_flag=True,
    help="Check the click consumer of this host instead of the service.",
)
def health(of_clicks: bool) -> None:
    """Check whether the service on this host is ready.

    Asks /health/ready on SNAPURL_PORT, and the shards whether it is their service. Exits with 0 if the service is
    ready, otherwise prints the reason and exits with 1. For frequent checks, snapurl-probe costs less.
    """
    from snapurl.clicks.health import consumer_fault
    from snapurl.run.healthcheck import service_fault

    settings = load_settings()
    check = consumer_fault(settings) if of_clicks else service_fault(settings, _cluster_known(settings))
    fault = asyncio.run(check)
    click.echo(fault or "ready")
    sys.exit(1 if fault else 0)


cli.add_command(links)
cli.add_command(show_statistics)
cli.add_command(import_file)
cli.add_command(export)
cli.add_command(webhooks)
cli.add_command(backup)
cli.add_command(restore_file)
cli.add_command(blocklist)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: prints an error as one line and maps it to an exit code.

    `arguments` default to those of the process.
    """
    try:
        code = cli(arguments, prog_name="snapurl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        _fail("stopped", 130)
    except ConfigError as error:
        _fail(str(error), 2)
    except SnapURLError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        _fail(file_error(error), 1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _cluster_known(settings: Settings) -> Settings | None:
    """As `_settings_or_local`, but returns None without SNAPURL_SHARDS and without a local cluster."""
    from snapurl.local.state import STATE_FILE

    known = settings.shards.get_secret_value() or (settings.home.expanduser() / STATE_FILE).exists()
    return settings_or_local() if known else None


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"snapurl: {one_line(line)}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
