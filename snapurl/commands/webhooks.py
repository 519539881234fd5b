"""`snapurl webhooks`: who is told of changes of links, over the API, for people without curl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import click

from snapurl.commands.links import client, show
from snapurl.commands.options import AS_JSON, confirm_change, warn_of_part
from snapurl.errors import ConfigError
from snapurl.messages import CHOICE, MessageState

WEBHOOKS = "/api/v1/webhooks"
TEST_S_MAX = 30.0  # for which `test` waits for the first attempt
TEST_POLL_S = 0.5
PAGE_ROWS_MAX = 200

_ID = click.argument("webhook", metavar="ID")
_EVENTS = click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([kind.value for kind in CHOICE]),
    help="What it is told of. May be repeated.",
)


@click.group()
def webhooks() -> None:
    """Tell other programs of changes of links.

    \b
    Uses the service and the key as `snapurl links` does. ID is the id of a
    webhook, as `snapurl webhooks list` shows it.
    """


@webhooks.command("create")
@click.argument("url")
@_EVENTS
@click.option("--account", metavar="ID", help="Account whose links it is told of. Default: that of the key.")
@click.option("--all-accounts", is_flag=True, help="Tell it of the links of all accounts.")
@click.option("--note", default="", help="A text for people.")
@AS_JSON
def webhooks_create(
    url: str,
    events: tuple[str, ...],
    account: str | None,
    all_accounts: bool,
    note: str,
    as_json: bool | None,
) -> None:
    """Send messages to URL, and print the secret that signs them.

    Without --event it is told of everything but link.clicks. The secret is
    shown only this once.
    """
    body: dict[str, object] = {"url": url, "note": note, "all_accounts": all_accounts}
    if events:
        body["events"] = list(events)
    if account is not None:
        body["account"] = account
    _show_secret(as_json, client().call("POST", WEBHOOKS, body))


@webhooks.command("list")
@AS_JSON
def webhooks_list(as_json: bool | None) -> None:
    """List webhooks, newest first."""
    found = client().call("GET", WEBHOOKS)
    warn_of_part("webhooks", found)
    show(as_json, found, lambda: _print_webhooks(found["webhooks"]))


@webhooks.command("show")
@_ID
@AS_JSON
def webhooks_show(webhook: str, as_json: bool | None) -> None:
    """Show a webhook, without its secret."""
    found = client().call("GET", _path(webhook))
    show(as_json, found, lambda: _print_one(found))


@webhooks.command("edit")
@_ID
@click.option("--url", help="Where messages are sent.")
@_EVENTS
@click.option("--note", help="A text for people.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is sent messages.")
@AS_JSON
def webhooks_edit(
    webhook: str,
    url: str | None,
    events: tuple[str, ...],
    note: str | None,
    enabled: bool | None,
    as_json: bool | None,
) -> None:
    """Change a webhook. What you do not name stays."""
    given = {"url": url, "events": list(events) or None, "note": note, "enabled": enabled}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise ConfigError("name what to change: `snapurl webhooks edit --help` lists the options")
    found = client().call("PATCH", _path(webhook), body)
    show(as_json, found, lambda: _print_one(found))


@webhooks.command("delete")
@_ID
@click.option("--yes", is_flag=True, help="Do not ask.")
def webhooks_delete(webhook: str, yes: bool) -> None:
    """Delete a webhook. Messages that wait are not sent."""
    confirm_change(yes, f"Delete {webhook}?")
    client().call("DELETE", _path(webhook))
    click.echo(f"Deleted {webhook}.")


@webhooks.command("rotate")
@_ID
@AS_JSON
def webhooks_rotate(webhook: str, as_json: bool | None) -> None:
    """Give a webhook another secret, and print it.

    For a day the old secret signs, too.
    """
    _show_secret(as_json, client().call("POST", f"{_path(webhook)}/rotate"))


@webhooks.command("test")
@_ID
def webhooks_test(webhook: str) -> None:
    """Send a test message, and print what came of it."""
    api = client()
    found = api.call("GET", _path(webhook))
    if not found["enabled"]:
        raise ConfigError(f"{webhook} is disabled ({found['disabled_why']}): enable it with `edit --enable`")
    message = api.call("POST", f"{_path(webhook)}/test")["message"]
    deadline = monotonic() + TEST_S_MAX
    while monotonic() < deadline:
        page = api.call("GET", f"{_path(webhook)}/deliveries", query={"limit": PAGE_ROWS_MAX})
        for each in page["deliveries"]:
            if each["id"] == message and each["attempts"]:
                click.echo(f"{each['id']}: {each['outcome']}")
                raise SystemExit(0 if each["state"] == MessageState.SENT else 1)
        sleep(TEST_POLL_S)
    raise ConfigError(f"{message} has not been sent within {TEST_S_MAX:g} s: does `snapurl clicks` run?")


@webhooks.command("deliveries")
@_ID
@click.option(
    "--state", type=click.Choice([state.value for state in MessageState]), help="Only messages that are this."
)
@click.option(
    "--limit",
    type=click.IntRange(1, PAGE_ROWS_MAX),
    default=50,
    show_default=True,
    help="How many messages to show.",
)
@AS_JSON
def webhooks_deliveries(webhook: str, state: str | None, limit: int, as_json: bool | None) -> None:
    """List messages and what became of them, newest first."""
    query: dict[str, object] = {"limit": limit, **({"state": state} if state else {})}
    found = client().call("GET", f"{_path(webhook)}/deliveries", query=query)
    warn_of_part("messages", found)
    show(as_json, found, lambda: _print_deliveries(found["deliveries"]))


@webhooks.command("replay")
@_ID
@click.argument("message", required=False)
def webhooks_replay(webhook: str, message: str | None) -> None:
    """Send MESSAGE again. Without it, all messages that were given up."""
    body = {} if message is None else {"message": message}
    api, replayed = client(), 0
    while True:
        found = api.call("POST", f"{_path(webhook)}/replay", body)
        replayed += found["replayed"]
        if found["complete"] or not found["replayed"]:
            break
    warn_of_part("messages", found)
    click.echo(f"{replayed:,} message{' is' if replayed == 1 else 's are'} sent again.")


def _path(webhook: str) -> str:
    return f"{WEBHOOKS}/{quote(webhook, safe='')}"


def _show_secret(as_json: bool | None, found: Mapping[str, Any]) -> None:
    def text() -> None:
        click.echo(f"id      {found['id']}\nsecret  {found['secret']}")

    if not found["complete"]:
        silent = f"shard {', '.join(found['partial'])} does" if found["partial"] else "a shard does"
        click.echo(
            f"snapurl: {silent} not answer: changes there are told some seconds after it does", err=True
        )
    show(as_json, found, text)


def _print_webhooks(found: Sequence[Mapping[str, Any]]) -> None:
    from snapurl.commands.render import show_table

    rows = [
        (
            each["id"],
            each["account"] or "all",
            "enabled" if each["enabled"] else each["disabled_why"],
            each["url"],
            ", ".join(each["events"]),
            each["note"],
        )
        for each in found
    ]
    show_table(("id", "account", "state", "url", "events", "note"), rows)


def _print_deliveries(found: Sequence[Mapping[str, Any]]) -> None:
    from snapurl.commands.render import show_table

    rows = [
        (
            each["id"],
            each["at"][:19].replace("T", " "),
            each["type"],
            "/".join(filter(None, (each["domain"], each["code"]))),
            each["state"],
            str(each["attempts"]),
            each["outcome"] or "",
        )
        for each in found
    ]
    show_table(("id", "at", "type", "code", "state", "attempts", "outcome"), rows)


def _print_one(found: Mapping[str, Any]) -> None:
    from snapurl.commands.render import show_link

    show_link(found)
