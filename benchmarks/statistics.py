"""Measures how long statistics take, of a link and of all links: `python -m benchmarks.statistics`.

Fills four shards with links, a year of days of one of them with every kind at its bound, and a year of days of
groups: all links, a large account, a common tag, and hundreds of small accounts. Then it starts one worker, and
asks over HTTP for each answer, one request at a time. It prints the percentiles as a table, and ends with exit code
1 if one of them is over its bar.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any

import asyncpg
import click
import httpx

from benchmarks import bed, find
from ring.slots import slot_of
from snapurl.keys import create_key
from snapurl.model import SourceKind

LINK_MS_MAX = 100
GROUP_MS_MAX = 200
DAYS = 365
CLICKS = 10_000_000  # of the link, and of each large group on each shard
SMALL_ACCOUNTS = 500

# $1 are the days, $2 the clicks of each. A day has all values that a kind keeps, out of three times as many, and
# others under `*`.
_TOLD = """
CREATE TEMPORARY TABLE told AS
SELECT d.day, (SELECT jsonb_object_agg(k.kind, (
                   SELECT jsonb_object_agg(v.value, v.clicks)
                     FROM (SELECT CASE WHEN k.kind IN ('hour', 'bot_hour', 'channel', 'device') THEN n::text
                                       ELSE k.kind || ' ' || (n + 7 * d.number) % (3 * m.most) END AS value,
                                  greatest(1, $2::bigint / 10 / m.most) AS clicks
                             FROM generate_series(0, m.most - 1) AS n
                           UNION ALL
                           SELECT '*', $2::bigint / 10
                            WHERE k.kind NOT IN ('hour', 'bot_hour', 'channel', 'device')) v))
                 FROM unnest($3::text[]) AS k (kind), clicks_values_max_v1(k.kind) AS m (most)) AS sources
  FROM unnest($1::date[]) WITH ORDINALITY AS d (day, number)
"""
_LINK = """
INSERT INTO click_days (slot, code, day, clicks, bots, visitors, sources)
SELECT $1, $2, day, $3, $3::bigint / 10, $3::bigint / 2, sources FROM told
"""
_GROUPS = """
INSERT INTO click_groups (slot, scope, key, day, clicks, bots, sources)
SELECT (SELECT min(slot) FROM slots WHERE state = 'owned'), g.scope, g.key, t.day, $2, $2::bigint / 10, t.sources
  FROM told t,
       (VALUES ('domain', ''), ('account', $1), ('tag', 'common'), ('account_tag', $1 || '/common')) g (scope, key)
"""
_SMALL = """
INSERT INTO click_groups (slot, scope, key, day, clicks, sources)
SELECT (SELECT min(slot) FROM slots WHERE state = 'owned'), 'account', 'owner' || n, day, 9,
       '{"hour": {"9": 5, "17": 4}, "referrer": {"news.example": 4}, "country": {"DE": 9}, "os": {"ios": 9}}'
  FROM unnest($1::date[]) AS day, generate_series(0, $2 - 1) AS n
"""

Query = dict[str, str]


@click.command()
@click.option("--links", default=1_000_000, show_default=True)
@click.option("--repeats", default=40, show_default=True, help="Requests per answer that is measured.")
def main(links: int, repeats: int) -> None:
    """Measure how long statistics take."""
    late = asyncio.run(measure(links, repeats))
    if late:
        raise click.ClickException(f"over their bar: {', '.join(late)}")


async def measure(links: int, repeats: int) -> list[str]:
    """Prints the table. Returns the names of the answers whose p95 is over its bar."""
    late = []
    with tempfile.TemporaryDirectory(prefix="snapurl-statistics-") as directory:
        async with bed.made(Path(directory)) as made:
            key = await create_key(made.settings, "statistics", ["admin"])
            large = key.split("_")[1]
            await find.fill(made, links, large)
            code = await fill(made, large)
            async with (
                bed.serving(made, 1) as service,
                httpx.AsyncClient(
                    base_url=service.url, headers={"X-Api-Key": key}, timeout=find.TIMEOUT_S
                ) as client,
            ):
                print("| statistics | p50 | p95 | bar |\n|---|---|---|---|")
                for name, path, query, bar_ms in answers(code, large):
                    times = [await time_ms(client, path, query) for _ in range(repeats)]
                    print(f"| {name} | {find.percentiles(times)} | {bar_ms} ms |", flush=True)
                    if quantiles(times, n=20, method="inclusive")[18] > bar_ms:
                        late.append(name)
    return late


def answers(code: str, large: str) -> list[tuple[str, str, Query, int]]:
    """Returns what is asked for: its name, path and query, and the p95 in ms that it may have."""
    today = datetime.now(UTC).date()
    year: Query = {"from": str(today - timedelta(DAYS - 1)), "to": str(today)}
    series: dict[str, Query] = {
        "by day": {},
        "by month": {"interval": "month"},
        "by day in Berlin": {"tz": "Europe/Berlin"},
        "by day, compared": {**year, "compare": "previous"},
        "by hour": {"interval": "hour", "from": str(today - timedelta(30)), "to": str(today)},
    }
    groups: dict[str, Query] = {
        "all links": {},
        "a large account": {"account": large},
        "a common tag": {"tag": "common"},
        "a tag of an account": {"account": large, "tag": "common"},
        "a small account": {"account": "owner7"},
    }
    of_link = f"/api/v1/links/{code}/stats"
    found = [(f"of a link, {name}", of_link, query, LINK_MS_MAX) for name, query in series.items()]
    found += [(f"of a link, {kind}", f"{of_link}/{kind}", year, LINK_MS_MAX) for kind in SourceKind]
    for group, query in groups.items():
        found += [
            (f"of {group}, {name}", "/api/v1/stats", {**query, **more}, GROUP_MS_MAX)
            for name, more in series.items()
        ]
    return found + [
        (f"of {group}, {kind}", f"/api/v1/stats/{kind}", {**query, **year}, GROUP_MS_MAX)
        for group, query in list(groups.items())[:2]
        for kind in SourceKind
    ]


async def fill(made: bed.Bed, large: str) -> str:
    """Fills the days of a link and of groups. Returns the code of the link."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(number) for number in range(DAYS)]
    codes = await asyncio.gather(*(fill_shard(dsn, days, large) for dsn in made.dsns.values()))
    return codes[0]


async def fill_shard(dsn: str, days: list[date], large: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        code: str = await connection.fetchval("SELECT min(code) FROM links WHERE owner = $1", large)
        clicks = CLICKS // DAYS
        kinds: list[Any] = [*SourceKind, "hour", "bot_hour"]
        began = monotonic()
        await connection.execute(_TOLD, days, clicks, kinds, timeout=600)
        await connection.execute(_LINK, slot_of(code), code, clicks, timeout=600)
        await connection.execute(_GROUPS, large, clicks, timeout=600)
        await connection.execute(_SMALL, days, SMALL_ACCOUNTS, timeout=600)
        await connection.execute("VACUUM (ANALYZE) click_days, click_groups", timeout=600)
        size = await connection.fetchval("SELECT avg(pg_column_size(sources)) FROM click_days")
        print(f"a day of the link is {size:.0f} bytes; filled in {monotonic() - began:.0f} s")
        return code
    finally:
        await connection.close()


async def time_ms(client: httpx.AsyncClient, path: str, query: Query) -> float:
    began = monotonic()
    answer = await client.get(path, params=query)
    answer.raise_for_status()
    if not answer.json().get("complete", True):
        raise click.ClickException(f"a shard did not answer in time: {path} {query}")
    return (monotonic() - began) * 1_000


if __name__ == "__main__":
    main()
