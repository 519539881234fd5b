"""`snapurl links`: the links of a service, for people without curl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import click

from snapurl.commands.api import Api, ApiRefusal
from snapurl.commands.options import (
    AS_JSON,
    CODE,
    LINK_FIELDS,
    LIST_FILTERS,
    PASSWORD,
    RULES,
    Named,
    ask_password,
    body_of,
    confirm_change,
    query_of,
    read_rules,
    wants_json,
    warn_of_part,
)
from snapurl.config import load_settings

LINKS = "/api/v1/links"
PAGE_LINKS = 200  # as many as the API gives at once


@click.group()
def links() -> None:
    """Create, find, change and delete links.

    \b
    Uses the service at SNAPURL_URL with the key in SNAPURL_API_KEY, or in the
    file that SNAPURL_API_KEY_FILE names. Without them it uses the service and
    the key of `snapurl up` on this machine.

    CODE is the code of a link, or its short URL. A code is of the domain that
    --domain names.
    """


@links.command("create")
@click.argument("url")
@click.option("--alias", help="The code that you want. Default: a made-up one.")
@click.option("--domain", metavar="HOST", help="The domain of the short URL. Default: that of the service.")
@LINK_FIELDS
@RULES
@PASSWORD
@AS_JSON
def links_create(
    url: str,
    alias: str | None,
    domain: str | None,
    rules: TextIO | None,
    asks_password: bool,
    as_json: bool | None,
    **fields: object,
) -> None:
    """Shorten URL and print the short URL.

    \b
    snapurl links create https://example.org/sale --alias sale --expires 7d
    snapurl links create https://example.org/app --rules by-device.json
    """
    body = {"url": url, **body_of({**fields, "alias": alias or None, "domain": domain or None})}
    if rules is not None:
        body["rules"] = read_rules(rules)
    if asks_password:
        body["password"] = ask_password()
    link = client().call("POST", LINKS, body)
    show(as_json, link, lambda: click.echo(link["short_url"]))


@links.command("show")
@CODE
@AS_JSON
def linksshow(code: Named, as_json: bool | None) -> None:
    """Show a link.

    \b
    snapurl links show sale
    """
    from snapurl.commands.render import show_link

    link = call_link("GET", code)
    show(as_json, link, lambda: show_link(link))


@links.command("list")
@LIST_FILTERS
@AS_JSON
def links_list(as_json: bool | None, limit: int, **filters: object) -> None:
    """List links, newest first.

    \b
    snapurl links list --tag sale --state expired --limit 1000
    """
    _list(query_of(filters), limit, as_json)


@links.command("find")
@click.argument("words", nargs=-1, required=True)
@LIST_FILTERS
@AS_JSON
def links_find(words: tuple[str, ...], as_json: bool | None, limit: int, **filters: object) -> None:
    """Find links by a part of their code, URL or title.

    \b
    snapurl links find summer fair
    """
    _list({"q": " ".join(words), **query_of(filters)}, limit, as_json)


@links.command("edit")
@CODE
@click.option("--url", help="Where it leads from now on.")
@LINK_FIELDS
@click.option("--no-tags", is_flag=True, help="Remove all tags.")
@RULES
@click.option("--no-rules", is_flag=True, help="Remove all rules.")
@PASSWORD
@click.option("--no-password", is_flag=True, help="Remove the password.")
@AS_JSON
def links_edit(
    code: Named,
    url: str | None,
    no_tags: bool,
    rules: TextIO | None,
    no_rules: bool,
    asks_password: bool,
    no_password: bool,
    as_json: bool | None,
    **fields: object,
) -> None:
    """Change a link. What you leave out stays; an empty text, never or 0 removes what was set.

    \b
    snapurl links edit sale --url https://example.org/new --expires never
    """
    changed = body_of({"url": url, **fields})
    if no_tags:
        changed["tags"] = []
    if rules is not None and no_rules:
        raise click.UsageError("--rules and --no-rules: choose one")
    if rules is not None:
        changed["rules"] = read_rules(rules)
    if no_rules:
        changed["rules"] = None
    if no_password:
        changed["password"] = None
    if asks_password:
        changed["password"] = ask_password()
    if not changed:
        raise click.UsageError("say what to change, for example with --url")
    _change(code, changed, as_json)


@links.command("disable")
@CODE
@AS_JSON
def links_disable(code: Named, as_json: bool | None) -> None:
    """Switch a link off. It keeps all its data; `enable` switches it on.

    \b
    snapurl links disable sale
    """
    _change(code, {"enabled": False}, as_json)


@links.command("enable")
@CODE
@AS_JSON
def links_enable(code: Named, as_json: bool | None) -> None:
    """Switch a link on.

    \b
    snapurl links enable sale
    """
    _change(code, {"enabled": True}, as_json)


@links.command("delete")
@CODE
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def links_delete(code: Named, yes: bool, as_json: bool | None) -> None:
    """Delete a link. For 30 days it can be restored; its code is never given out again.

    \b
    snapurl links delete sale
    """
    confirm_change(yes, f"Delete {code}?")
    call_link("DELETE", code)
    show(as_json, {"code": code.code, **code.query, "deleted": True}, lambda: click.echo(f"Deleted {code}."))


@links.command("restore")
@CODE
@AS_JSON
def links_restore(code: Named, as_json: bool | None) -> None:
    """Restore a link that was deleted within the last 30 days.

    \b
    snapurl links restore sale
    """
    from snapurl.commands.render import show_link

    link = call_link("POST", code, "/restore")
    show(as_json, link, lambda: show_link(link))


@links.command("rename")
@CODE
@click.argument("new")
@click.option("--give-up", is_flag=True, help="Delete the old code, rather than let it redirect.")
@click.option("--yes", is_flag=True, help="With --give-up: do not ask.")
@AS_JSON
def links_rename(code: Named, new: str, give_up: bool, yes: bool, as_json: bool | None) -> None:
    """Give a link the code NEW. The old code goes on redirecting; run it again if the service did not answer.

    \b
    snapurl links rename sale spring-sale
    """
    if give_up:
        confirm_change(yes, f"Delete {code}, so that only {new} works?")
    body = {"code": new, "old": "give-up" if give_up else "redirect"}
    link = call_link("POST", code, "/rename", body)
    show(as_json, link, lambda: click.echo(link["short_url"]))


@links.command("fetch-title")
@CODE
@AS_JSON
def links_fetch_title(code: Named, as_json: bool | None) -> None:
    """Give a link the title of the page that it leads to.

    The service must fetch titles (SNAPURL_FETCH_TITLES).

    \b
    snapurl links fetch-title sale
    """
    link = call_link("POST", code, "/title")
    show(as_json, link, lambda: click.echo(link["title"]))


@links.command("qr")
@CODE
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an image to this file, which ends with .svg or .png.",
)
@click.option("--size", type=int, help="Width in pixels.")
@click.option("--border", type=int, help="The quiet zone around it, in modules.")
@click.option("--dark", help="Colour of dark modules, such as 1d4ed8.")
@click.option("--light", help="Colour of light modules, or transparent.")
@click.option(
    "--error", type=click.Choice(["L", "M", "Q", "H"]), help="How much of it may be damaged: 7 to 30 %."
)
def links_qr(code: Named, output: Path | None, **style: object) -> None:
    """Show the QR code of a link, or write it to a file.

    \b
    snapurl links qr sale
    snapurl links qr sale --output poster.svg --error H
    """
    from snapurl.qr import FORMATS, blocks, scan_url

    asked = {name: value for name, value in style.items() if value is not None}
    if output is None:
        if asked:
            raise click.UsageError(
                "size, border, colours and error are for images: name a file with --output"
            )
        for line in blocks(scan_url(call_link("GET", code)["short_url"])).splitlines():
            click.secho(line, fg="bright_white", bg="black")
        return
    kind = output.suffix[1:].lower()
    if kind not in FORMATS:
        raise click.BadParameter(f"{output.name!r} must end with .svg or .png", param_hint="--output")
    with _named(code):
        image = client().fetch("GET", f"{_path(code)}/qr", query={**code.query, "format": kind, **asked})
    output.write_bytes(image)


@links.command("share-stats")
@CODE
@AS_JSON
def links_share_stats(code: Named, as_json: bool | None) -> None:
    """Make a public link to the statistics of a link.

    Prints it. Whoever has it sees them without a key, until `unshare-stats` revokes it.

    \b
    snapurl links share-stats sale
    """
    made = call_link("POST", code, "/public-stats")
    show(as_json, made, lambda: click.echo(made["url"]))


@links.command("unshare-stats")
@CODE
@AS_JSON
def links_unshare_stats(code: Named, as_json: bool | None) -> None:
    """Revoke the public link to the statistics of a link.

    \b
    snapurl links unshare-stats sale
    """
    call_link("DELETE", code, "/public-stats")
    document = {"code": code.code, **code.query, "url": None}
    show(as_json, document, lambda: click.echo(f"The statistics of {code} have no public link."))


@links.command("history")
@CODE
@AS_JSON
def links_history(code: Named, as_json: bool | None) -> None:
    """Show who changed a link, what and when.

    Of a deleted link, too.

    \b
    snapurl links history sale
    """
    from snapurl.commands.render import show_history

    found = call_link("GET", code, "/history")
    show(as_json, found, lambda: show_history(found))


@links.command("where")
@CODE
@AS_JSON
def links_where(code: Named, as_json: bool | None) -> None:
    """Show which slot and shard a link is in. Takes an admin key.

    \b
    snapurl links where sale
    """
    place = client().call("GET", "/api/v1/ring", query={"code": code.code, **code.query})["place"]
    target = "" if place["shard"] == place["target"] else f", to be moved to {place['target']}"
    moving = ", in hand-off" if place["in_hand_off"] else ""
    text = f"{code} is in slot {place['slot']}, on shard {place['shard']}{moving}{target}"
    show(as_json, {"code": code.code, **code.query, **place}, lambda: click.echo(text))


def client() -> Api:
    return Api.of(load_settings())


@contextmanager
def _named(code: Named) -> Iterator[None]:
    """Says in a refusal which link is not there."""
    try:
        yield
    except ApiRefusal as refusal:
        if refusal.answered not in (404, 410):
            raise
        raise ApiRefusal(f"{code}: {refusal.detail}", refusal.answered) from None


def call_link(
    method: str,
    code: Named,
    below: str = "",
    body: object = None,
    query: Mapping[str, object] | None = None,
) -> Any:
    """Returns the answer about one link. Raises ApiRefusal."""
    with _named(code):
        return client().call(method, _path(code) + below, body, {**code.query, **(query or {})})


def _path(code: Named) -> str:
    return f"{LINKS}/{quote(code.code, safe='')}"


def _change(code: Named, changed: Mapping[str, object], as_json: bool | None) -> None:
    from snapurl.commands.render import show_link

    link = call_link("PATCH", code, body=changed)
    show(as_json, link, lambda: show_link(link))


def _list(query: Mapping[str, object], limit: int, as_json: bool | None) -> None:
    """Prints up to `limit` links, page by page from the API."""
    from snapurl.commands.render import show_links

    api, is_complete = client(), True
    found: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        asked = {**query, "limit": min(PAGE_LINKS, limit - len(found))}
        page = api.call("GET", LINKS, query={**asked, "cursor": cursor} if cursor else asked)
        found += page["links"]
        is_complete = is_complete and page["complete"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    document = {"links": found, "more": cursor is not None, "complete": is_complete}
    show(as_json, document, lambda: show_links(found) if found else click.echo("There is no link."))
    if cursor is not None and not wants_json(as_json):
        click.echo("There are more: see --limit.", err=True)
    warn_of_part("links", {**document, "partial": None})


def show(as_json: bool | None, document: Mapping[str, Any], show_text: Any) -> None:
    """Prints the document as one line of JSON, or calls `show_text`."""
    if wants_json(as_json):
        click.echo(json.dumps(document))
    else:
        show_text()
