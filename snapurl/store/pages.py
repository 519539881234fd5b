"""Pages of links over all shards: each link once, also while slots move.

Every shard reads its part of a page, and the slots that it answers for, in one snapshot. The page counts only if
these sets cover each slot exactly once (`cluster/fanout.py`).

A search for text may have read for SEARCH_S without finding enough links, and so may a list by clicks. Then the
shard says where it stopped, and the page ends at the first of these places: what a shard has found beyond it comes
on the next page.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from snapurl.model import (
    LINK_COLUMNS,
    Link,
    LinkCount,
    LinkOrder,
    LinkQuery,
    ListedLinks,
    PageKey,
    TagCount,
    TagCounts,
)
from snapurl.store.cluster.fanout import every_slot_once
from snapurl.store.cluster.shards import Shards
from snapurl.store.link_query import (
    Statement,
    chunk_of,
    clicked_chunk_of,
    count_of,
    counted_chunk_of,
    estimate_of,
    page_of,
    tags_of,
    unclicked_chunk_of,
)

CHUNK_ROWS = 5_000  # searched per statement
WALKED_ROWS = 2_000  # likewise, of a list by clicks: each is looked up in a second table
SEARCH_S = 0.1  # of a search per shard and page, and of a search that counts
SORTED_ROWS_MAX = 5_000  # expected of a list by clicks: of more links the totals are walked
COUNT_MAX = 10_000  # a list with more links is estimated
SHARD_TAGS_MAX = 10_000  # tags that a shard counts, those with the most links

Row = Mapping[str, Any]

_NO_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Part:
    """A shard's part of a page. `end` is where a search stopped, None if nothing stopped it."""

    links: list[Link]
    end: PageKey | None = None


async def read_page(shards: Shards, query: LinkQuery, limit: int, after: PageKey | None) -> ListedLinks:
    """Returns up to `limit` links after `after`. Raises Unavailable."""

    async def read(connection: Any, slots: list[int]) -> _Part:
        if query.order is LinkOrder.CLICKS and await _are_many(connection, query, slots):
            return await _walk_by_clicks(connection, query, slots, limit + 1, after)
        if query.text is not None:
            return await _search(connection, query, slots, limit + 1, after)
        rows = await _fetch(connection, page_of(query, slots, after, limit + 1))
        return _Part([link_of(row) for row in rows])

    listed = await every_slot_once(shards, read)
    links, end = _merged(listed.answers, query, limit)
    return ListedLinks(links, end, listed.silent)


async def read_count(shards: Shards, query: LinkQuery) -> LinkCount | None:
    """Returns how many links the query has; None if a part of them cannot be counted now. Raises Unavailable."""
    query = replace(query, order=LinkOrder.CREATED)  # the cheapest: they are read, but not shown

    async def read(connection: Any, slots: list[int]) -> LinkCount:
        if query.text is not None:
            return await _count_matches(connection, query, slots)
        counted = await connection.fetchval(*_call(count_of(query, slots, COUNT_MAX + 1)))
        if counted <= COUNT_MAX:
            return LinkCount(counted, is_estimate=False)
        return LinkCount(max(counted, await _estimate(connection, query, slots)), is_estimate=True)

    listed = await every_slot_once(shards, read)
    if listed.silent:
        return None
    return LinkCount(
        sum(part.links for part in listed.answers), any(part.is_estimate for part in listed.answers)
    )


async def read_tags(shards: Shards, query: LinkQuery, prefix: str, limit: int) -> TagCounts:
    """Returns up to `limit` tags of the query's links, which begin with `prefix`. Raises Unavailable."""

    async def read(connection: Any, slots: list[int]) -> list[Row]:
        return await _fetch(connection, tags_of(query, slots, prefix, SHARD_TAGS_MAX))

    listed = await every_slot_once(shards, read)
    links: Counter[str] = Counter()
    for rows in listed.answers:
        for row in rows:
            links[row["tag"]] += row["links"]
    ordered = sorted(links.items(), key=lambda item: (-item[1], item[0]))
    is_whole = len(ordered) <= limit and all(len(rows) < SHARD_TAGS_MAX for rows in listed.answers)
    return TagCounts([TagCount(*item) for item in ordered[:limit]], is_whole, listed.silent)


def link_of(row: Row) -> Link:
    """Returns a row of `links`."""
    values = {name: row[name] for name in LINK_COLUMNS}
    values["tags"] = tuple(values["tags"])
    values["clicks"] = row["clicks"] or 0
    if values["created_by"] is None:  # made by a function that does not know who it was
        values["created_by"] = values["owner"]
    return Link(**values)


async def _search(
    connection: Any, query: LinkQuery, slots: list[int], limit: int, after: PageKey | None
) -> _Part:
    began = monotonic()
    found: list[Link] = []
    while True:
        rows = await _fetch(connection, chunk_of(query, slots, after, CHUNK_ROWS, limit - len(found)))
        found += [link_of(row) for row in rows if row["is_match"]]
        if len(found) >= limit or not rows or not rows[-1]["is_last"]:
            return _Part(found)
        after = query.key_of(link_of(rows[-1]))
        if monotonic() - began >= SEARCH_S:
            return _Part(found, after)


async def _are_many(connection: Any, query: LinkQuery, slots: list[int]) -> bool:
    """Whether a list by clicks costs less if the totals are walked than if its links are sorted."""
    if replace(query, order=LinkOrder.CREATED, ascending=False, text=None) == LinkQuery():
        return True  # nothing that was walked is left out, but for deleted links
    return await _estimate(connection, query, slots) > SORTED_ROWS_MAX


async def _walk_by_clicks(
    connection: Any, query: LinkQuery, slots: list[int], limit: int, after: PageKey | None
) -> _Part:
    """Reads first the links with clicks and then those without, or the other way round."""
    began = monotonic()
    found: list[Link] = []
    chunks = [clicked_chunk_of, unclicked_chunk_of]
    if query.ascending:
        chunks.reverse()
    if after is not None:
        del chunks[: chunks.index(clicked_chunk_of if after.clicks else unclicked_chunk_of)]
    for chunk in chunks:
        is_last = True
        while is_last:
            rows = await _fetch(connection, chunk(query, slots, after, WALKED_ROWS, limit - len(found)))
            found += [link_of(row) for row in rows if row["is_match"]]
            if len(found) >= limit:
                return _Part(found)
            if is_last := bool(rows) and rows[-1]["is_last"]:
                last = rows[-1]
                if chunk is clicked_chunk_of:
                    after = PageKey(None, last["code"], last["clicks"])
                else:
                    after = PageKey(last["created_at"], last["code"], 0)
                if monotonic() - began >= SEARCH_S:
                    return _Part(found, after)
        after = None
    return _Part(found)


async def _count_matches(connection: Any, query: LinkQuery, slots: list[int]) -> LinkCount:
    """Counts for SEARCH_S, and takes the rest of the links to match as often as those that were read."""
    began = monotonic()
    after: PageKey | None = None
    found = read = 0
    while True:
        rows = await _fetch(connection, counted_chunk_of(query, slots, after, CHUNK_ROWS))
        if rows:
            found += rows[0]["matches"]
            read += rows[0]["read"]
        if not rows or rows[0]["read"] < CHUNK_ROWS:
            return LinkCount(found, is_estimate=False)
        after = query.key_of(link_of(rows[0]))
        if found > COUNT_MAX or monotonic() - began >= SEARCH_S:
            links = max(read, await _estimate(connection, query, slots))
            return LinkCount(round(found * links / read), is_estimate=True)


async def _estimate(connection: Any, query: LinkQuery, slots: list[int]) -> int:
    plan = json.loads(await connection.fetchval(*_call(estimate_of(query, slots))))
    return int(plan[0]["Plan"]["Plan Rows"])


def _merged(parts: Sequence[_Part], query: LinkQuery, limit: int) -> tuple[list[Link], PageKey | None]:
    """Returns the links of a page in their order, and where the next page begins."""
    ends = [(_place(part.end), part.end) for part in parts if part.end]
    placed = [(_place(query.key_of(link)), link) for part in parts for link in part.links]
    placed.sort(key=lambda item: item[0], reverse=not query.ascending)
    end: PageKey | None = None
    if ends:
        last, end = (min if query.ascending else max)(ends, key=lambda item: item[0])
        placed = [item for item in placed if (item[0] <= last if query.ascending else item[0] >= last)]
    links = [link for _, link in placed]
    if len(links) > limit:
        return links[:limit], query.key_of(links[limit - 1])
    return links, end


def _place(key: PageKey) -> tuple[int, datetime, str]:
    return key.clicks or 0, key.at or _NO_TIME, key.code


async def _fetch(connection: Any, statement: Statement) -> list[Row]:
    rows: list[Row] = await connection.fetch(*_call(statement))
    return rows


def _call(statement: Statement) -> tuple[Any, ...]:
    return (statement.sql, *statement.args)
