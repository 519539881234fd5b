"""Measures how long lists of links take, per filter and order: `python -m benchmarks.find`.

Fills four shards with links of many kinds, starts one worker, and asks over HTTP for the first page and the 100th
of each list (the last, where there are fewer), one request at a time. It prints the percentiles as a table.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any

import asyncpg
import click
import httpx

from benchmarks import bed
from benchmarks.seeding import settle
from snapurl.keys import create_key

PAGES = 100
LIMIT = 50
TIMEOUT_S = 30.0

# Owners: one key has every second link, `idle` has a tenth, 500 others share a tenth, the rest is anonymous. Ages,
# tags, expiries, changes and deletes are spread over all of them.
FILL = """
INSERT INTO links (slot, code, version, url, title, tags, redirect_status, created_at, expires_at, deleted_at,
                   owner, token, changed_at)
SELECT c.slot, c.code, 1,
       'https://www.example.org/'
           || CASE WHEN n % 1000 = 0 THEN 'conference' WHEN n % 3 = 0 THEN 'articles' ELSE 'Shop' END
           || '/2026/' || md5(n::text) || '?utm_source=benchmark',
       CASE WHEN n % 4 = 0 THEN 'Title of link ' || n END,
       CASE WHEN n % 10000 = 0 THEN '{rare,common}' WHEN n % 5 = 0 THEN '{common}' ELSE '{}' END::text[], 302,
       now() - n * interval '20 seconds', CASE WHEN n % 50 = 1 THEN now() + (n % 400 - 200) * interval '1 day' END,
       CASE WHEN n % 100 = 99 THEN now() - n * interval '1 second' END,
       CASE WHEN n % 2 = 0 THEN $3 WHEN n % 10 = 1 THEN 'owner' || n / 10 % 500 WHEN n % 10 = 3 THEN 'idle'
            ELSE '' END, gen_random_uuid(),
       CASE WHEN n % 7 = 0 THEN now() - (n * 7919 % 10000000) * interval '1 second' END
  FROM (SELECT n, code, (get_byte(h, 0) * 64 + get_byte(h, 1) / 4)::smallint AS slot
          FROM (SELECT n, code, sha256(convert_to(code, 'UTF8')) AS h
                  FROM (SELECT n, substr(md5('code' || n), 1, 10) AS code
                          FROM generate_series($1::bigint, $2::bigint - 1) AS n) AS codes) AS hashes) AS c
  JOIN slots s ON s.slot = c.slot AND s.state = 'owned'
ON CONFLICT DO NOTHING
"""

# Of seven links in ten, one in k has at least k clicks. Links of the owner `idle` have none.
CLICK = """
INSERT INTO click_totals (slot, code, clicks)
SELECT slot, code, floor(0.7 / u)::bigint
  FROM (SELECT slot, code, (1 + ('x' || substr(md5('clicks' || code), 1, 7))::bit(28)::integer) / 268435456.0 AS u
          FROM links WHERE owner <> 'idle') AS clicked
 WHERE u <= 0.7
"""

Query = dict[str, Any]

LISTS: tuple[tuple[str, Query], ...] = (
    ("newest first", {}),
    ("oldest first", {"order": "asc"}),
    ("by code", {"sort": "code", "order": "asc"}),
    ("by last change", {"sort": "changed"}),
    ("by clicks", {"sort": "clicks"}),
    ("by clicks, fewest first", {"sort": "clicks", "order": "asc"}),
    ("of a large account", {"account": "large"}),
    ("of a large account, by code", {"account": "large", "sort": "code"}),
    ("of a large account, by last change", {"account": "large", "sort": "changed"}),
    ("of a large account, by clicks", {"account": "large", "sort": "clicks"}),
    ("of a large account without clicks, by clicks", {"account": "idle", "sort": "clicks"}),
    ("of a small account", {"account": "owner7"}),
    ("of a small account, by code", {"account": "owner7", "sort": "code"}),
    ("of a small account, by last change", {"account": "owner7", "sort": "changed"}),
    ("of a small account, by clicks", {"account": "owner7", "sort": "clicks"}),
    ("with a common tag", {"tags_any": ["common"]}),
    ("with a common tag, by code", {"tags_any": ["common"], "sort": "code"}),
    ("with a common tag, by clicks", {"tags_any": ["common"], "sort": "clicks"}),
    ("with a rare tag", {"tags_any": ["rare"]}),
    ("with a rare tag, by clicks", {"tags_any": ["rare"], "sort": "clicks"}),
    ("with two tags, by last change", {"tags_all": ["rare", "common"], "sort": "changed"}),
    ("without a tag", {"tags_none": ["common"]}),
    ("live", {"state": "live"}),
    ("expired", {"state": "expired"}),
    ("expired, by code", {"state": "expired", "sort": "code"}),
    ("expired, by clicks", {"state": "expired", "sort": "clicks"}),
    ("deleted", {"state": "deleted"}),
    ("deleted, by last change", {"state": "deleted", "sort": "changed"}),
    ("created within a range, by code", {"created_from": "{recent}", "sort": "code"}),
    ("text: common", {"q": "articles"}),
    ("text: in one link of 1,000", {"q": "conference"}),
    ("text: in one link of 1,000, by code", {"q": "conference", "sort": "code"}),
    ("text: in one link of 1,000, by clicks", {"q": "conference", "sort": "clicks"}),
    ("text: in no link", {"q": "nowhere at all"}),
    ("text: in no link, of a small account", {"q": "nowhere at all", "account": "owner7"}),
    ("text: in no link, with a rare tag", {"q": "nowhere at all", "tags_any": ["rare"]}),
    ("newest first, counted", {"total": "true"}),
    ("with a rare tag, counted", {"tags_any": ["rare"], "total": "true"}),
)


@click.command()
@click.option("--links", default=1_000_000, show_default=True)
@click.option("--repeats", default=30, show_default=True, help="Requests per page that is measured.")
def main(links: int, repeats: int) -> None:
    """Measure how long lists of links take."""
    asyncio.run(measure(links, repeats))


async def measure(links: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory(prefix="snapurl-find-") as directory:
        async with bed.made(Path(directory)) as made:
            key = await create_key(made.settings, "find", ["admin"])
            large = key.split("_")[1]
            await fill(made, links, large)
            async with bed.serving(made, 1) as service:
                print(f"| list of {links:,} links | first page p50 | p95 | page | p50 | p95 |")
                print("|---|---|---|---|---|---|")
                async with httpx.AsyncClient(
                    base_url=service.url, headers={"X-Api-Key": key}, timeout=TIMEOUT_S
                ) as client:
                    for name, query in LISTS:
                        print(await row(client, name, known(query, large), repeats), flush=True)


async def fill(made: bed.Bed, links: int, large: str) -> None:
    """Creates the links, and vacuums the tables."""

    async def fill_shard(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(FILL, 1, links + 1, large, timeout=3_600)
        await connection.execute(CLICK, timeout=3_600)
        await settle(connection)
        await connection.close()

    began = monotonic()
    await asyncio.gather(*map(fill_shard, made.dsns.values()))
    await asyncio.to_thread(os.sync)
    size = await made.total("SELECT pg_total_relation_size('links')") / links
    print(f"{links:,} links in {monotonic() - began:.0f} s, {size:.0f} bytes each with all indexes\n")


def known(query: Query, large: str) -> Query:
    """Returns a query with the values that only this run knows."""
    recent = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    return {name: {"large": large, "{recent}": recent}.get(value, value) if isinstance(value, str) else value
            for name, value in query.items()}  # fmt: skip


async def row(client: httpx.AsyncClient, name: str, query: Query, repeats: int) -> str:
    """Measures one list. Returns its row of the table."""
    first = await times_ms(client, query, repeats)
    number, cursor = 1, None
    answer = await page(client, query)
    while (following := answer["next_cursor"]) is not None and number < PAGES:
        number, cursor = number + 1, following
        answer = await page(client, {**query, "cursor": cursor})
    later = await times_ms(client, {**query, "cursor": cursor}, repeats) if cursor else first
    return f"| {name} | {percentiles(first)} | {number} | {percentiles(later)} |"


async def times_ms(client: httpx.AsyncClient, query: Query, repeats: int) -> list[float]:
    """Returns how long each of the requests took."""
    found = []
    for _ in range(repeats):
        began = monotonic()
        await page(client, query)
        found.append((monotonic() - began) * 1_000)
    return found


async def page(client: httpx.AsyncClient, query: Query) -> dict[str, Any]:
    answer = await client.get("/api/v1/links", params={"limit": LIMIT, **query})
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    if not body["complete"]:
        raise click.ClickException(f"a shard did not answer in time: {query}")
    return body


def percentiles(times: list[float]) -> str:
    cuts = quantiles(times, n=20, method="inclusive")
    return f"{cuts[9]:.0f} ms | {cuts[18]:.0f} ms"


if __name__ == "__main__":
    main()
