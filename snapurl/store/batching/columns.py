"""Many creates at one shard: links as the columns that `link_create_many_v1` takes, and its answer link by link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ring.slots import slot_of
from snapurl.model import NewLink
from snapurl.store.cluster.pool import Pool, Row
from snapurl.store.queries import load_queries

CREATE_MANY = load_queries("links")["create_many"]


async def create_rows(pool: Pool, links: Sequence[NewLink]) -> list[Row]:
    """One row per link, in their order; links that were made without more ado share theirs. Raises ShardFailed."""
    first, *others = await pool.fetch(CREATE_MANY, *_columns(links))
    rows = [first] * len(links)
    for row in others:
        rows[row["place"]] = row
    return rows


def _columns(links: Sequence[NewLink]) -> tuple[list[Any] | None, ...]:
    return (
        [slot_of(new.code) for new in links],
        [new.code for new in links],
        [new.url for new in links],
        _optional([new.title for new in links]),
        _optional([array_text(new.tags) if new.tags else None for new in links]),
        [new.redirect_status for new in links],
        _optional([new.expires_at for new in links]),
        [new.owner for new in links],
        [new.token for new in links],
    )


def _optional(column: list[Any]) -> list[Any] | None:
    """None for a column of nothing, which mostly is what these are and costs nothing then."""
    return None if column.count(None) == len(column) else column


def array_text(words: Sequence[str]) -> str:
    """An array as PostgreSQL reads it: an array of arrays cannot have them of different lengths."""
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return "{" + ",".join(f'"{word}"' for word in quoted) + "}"
