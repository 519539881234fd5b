"""`snapurl blocklist`: the list of blocked hosts, a URL that is tried, and the links to blocked hosts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import click

from snapurl.commands.api import ApiRefusal
from snapurl.commands.links import LINKS, client, show
from snapurl.commands.options import AS_JSON, confirm_change

BLOCKLIST = "/api/v1/blocklist"
BATCH_LINKS = 1_000


@click.group()
def blocklist() -> None:
    """Hosts to which no link may lead.

    \b
    The service reads them from SNAPURL_BLOCKED_HOSTS_FILE, and asks the
    program SNAPURL_URL_CHECK_COMMAND. These commands ask the service at
    SNAPURL_URL, and take an admin key.
    """


@blocklist.command("status")
@AS_JSON
def blocklist_status(as_json: bool | None) -> None:
    """Show how many hosts are blocked, since when, and what is wrong."""
    found = client().call("GET", BLOCKLIST)
    show(as_json, found, lambda: click.echo("\n".join(_status_lines(found))))


def _status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    if found["has_file"]:
        hosts = "none loaded yet" if found["hosts"] is None else f"{found['hosts']:,}"
        yield f"blocked hosts    {hosts}"
        yield f"loaded           {found['loaded_at'] or '-'}"
        yield f"unread lines     {found['unread_lines']:,}"
        yield f"file             {found['fault'] or 'works'}"
    else:
        yield "blocked hosts    none: SNAPURL_BLOCKED_HOSTS_FILE is not set"
    if found["has_command"]:
        yield f"command          {found['command_fault'] or 'works'}"


@blocklist.command("test")
@click.argument("url")
@AS_JSON
def blocklist_test(url: str, as_json: bool | None) -> None:
    """Say whether a link may lead to URL. The exit code is 1 if not.

    \b
    snapurl blocklist test https://example.org/page
    """
    found = client().call("POST", f"{BLOCKLIST}/try", {"url": url})
    said = "allowed" if found["allowed"] else f"refused: it {found['reason']}"
    show(as_json, found, lambda: click.echo(said))
    sys.exit(0 if found["allowed"] else 1)


@blocklist.command("links")
@click.option("--disable", is_flag=True, help="Switch them off: visitors get 404, and their data stay.")
@click.option("--yes", is_flag=True, help="With --disable: do not ask.")
@AS_JSON
def blocklist_links(disable: bool, yes: bool, as_json: bool | None) -> None:
    """List links that lead to blocked hosts.

    They were made before their hosts were blocked. Reads all links, 1,000 per request. The history of a link says
    who switched it off.
    """
    found, is_complete = _find()
    disabled = 0
    if enabled := [each["link"] for each in found if disable and each["link"]["enabled"]]:
        confirm_change(yes, f"Switch off {len(enabled):,} links?")
        disabled = _disable(enabled)
    document = {"links": found, "disabled": disabled, "complete": is_complete}
    show(as_json, document, lambda: _print(found, disabled))
    if not is_complete:
        raise ApiRefusal("some links cannot be reached now: run this again")


def _find() -> tuple[list[dict[str, Any]], bool]:
    """Returns the links to blocked hosts, and whether all links were read."""
    found: list[dict[str, Any]] = []
    cursor, read, is_complete = None, 0, True
    while True:
        page = client().call("GET", f"{BLOCKLIST}/links", query={"cursor": cursor} if cursor else None)
        found += page["links"]
        read, is_complete = read + page["read"], is_complete and page["complete"]
        cursor = page["next_cursor"]
        if sys.stderr.isatty():
            click.echo(f"\r{read:,} links read, {len(found):,} found", nl=cursor is None, err=True)
        if cursor is None:
            return found, is_complete


def _disable(links: Sequence[Mapping[str, Any]]) -> int:
    """Switches links off, and returns how many. Raises ApiRefusal if one could not be."""
    done = 0
    by_domain = sorted(links, key=lambda link: link["domain"] or "")
    for domain, alike in groupby(by_domain, key=lambda link: link["domain"]):
        codes = [link["code"] for link in alike]
        for first in range(0, len(codes), BATCH_LINKS):
            body = {"action": "disable", "codes": codes[first : first + BATCH_LINKS]}
            results = client().call("POST", f"{LINKS}/batch", body | ({"domain": domain} if domain else {}))
            done += sum(result["status"] == 200 for result in results["results"])
    if done < len(links):
        raise ApiRefusal(f"{done:,} links were switched off, {len(links) - done:,} were not: run this again")
    return done


def _print(found: Sequence[Mapping[str, Any]], disabled: int) -> None:
    for each in found:
        link = each["link"]
        state = "" if link["enabled"] else "  (off)"
        click.echo(f"{link['short_url']}  {'  '.join(each['targets'])}{state}")
    off = f", {disabled:,} of them were switched off now" if disabled else ""
    click.echo(f"{len(found):,} links lead to blocked hosts{off}")
