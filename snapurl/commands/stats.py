"""`snapurl stats`: clicks of a link, or of many links, as a chart in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from snapurl.commands.links import call_link, client, show
from snapurl.commands.options import AS_JSON, CodeType, Named, wants_json
from snapurl.model import SourceKind
from snapurl.periods import DAYS_MAX, HOUR_DAYS_MAX, Interval

STATS = "/api/v1/stats"
BY_DEFAULT = (SourceKind.REFERRER, SourceKind.COUNTRY, SourceKind.DEVICE)
VALUES_SHOWN = 5
VALUES_OF_KIND = 50


def _zone(_context: click.Context, _param: click.Parameter, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise click.BadParameter(f"{name!r} is not the name of a time zone, as in Europe/Berlin") from None


@click.command("stats")
@click.argument("code", type=CodeType(), metavar="[CODE]", required=False)
@click.option("--all", "is_all", is_flag=True, help="All links that the key may see.")
@click.option("--tag", help="The links with this tag.")
@click.option("--account", help="The links of the account with this id. Takes an admin key.")
@click.option("--domain", metavar="HOST", help="The links of this domain; with CODE: the domain of the code.")
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX // 2),
    default=14,
    show_default=True,
    help="How many days up to today.",
)
@click.option(
    "--interval",
    type=click.Choice([each.value for each in Interval]),
    default="day",
    show_default=True,
    help="What a bar stands for.",
)
@click.option("--tz", "zone", default="UTC", show_default=True, callback=_zone, help="Time zone of the days.")
@click.option(
    "--by",
    "kind",
    type=click.Choice([each.value for each in SourceKind]),
    help="Show the values of this kind alone.",
)
@AS_JSON
def show_statistics(
    code: Named | None,
    is_all: bool,
    tag: str | None,
    account: str | None,
    domain: str | None,
    days: int,
    interval: str,
    zone: ZoneInfo,
    kind: str | None,
    as_json: bool | None,
) -> None:
    """Show the clicks of a link, or of many links.

    Beside them stand those of as many days before. CODE is the code of a link, or its short URL.

    \b
    snapurl stats sale --days 30
    snapurl stats sale --by country
    snapurl stats --tag newsletter --interval week --days 90
    snapurl stats --all
    """
    from snapurl.commands.render import show_stats, show_values

    group = {"tag": tag, "account": account, **({} if code else {"domain": domain})}
    asked = {name: value for name, value in group.items() if value is not None}
    if bool(code) + is_all + bool(asked) != 1:
        raise click.UsageError("name a link, or choose --all, --tag, --account or --domain")
    if interval == Interval.HOUR and days > HOUR_DAYS_MAX:
        raise click.UsageError(f"by hour there are at most {HOUR_DAYS_MAX} days")
    named = Named(code.code, domain or code.domain) if code else None
    today = datetime.now(zone).date()
    period = {"from": f"{today - timedelta(days - 1)}", "to": f"{today}"}

    def read(below: str, query: Mapping[str, object]) -> Any:
        if named is not None:
            return call_link("GET", named, f"/stats{below}", query=query)
        return client().call("GET", f"{STATS}{below}", query={**asked, **query})

    if kind is not None:
        values = read(f"/{kind}", {**period, "limit": VALUES_OF_KIND})
        show(as_json, values, lambda: show_values(values))
        return
    series = {"interval": interval, "tz": zone.key, "compare": "previous"}
    found = read("", {**period, **series})
    if wants_json(as_json):
        show(True, found, lambda: None)
        return
    by = {
        each.value: read(f"/{each}", {**period, "limit": VALUES_SHOWN})
        for each in BY_DEFAULT
        if found["clicks"]
    }
    show_stats(found, by)
