"""Creates at one shard: links as the arguments of `link_create` and `link_create_many`, and the rows of the answer.

The arguments follow from `LinkFields`: `link_create` takes one value per field, `link_create_many` and
`link_import` take one array. They come last, in the order of the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import fields

from ring.slots import slot_of
from snapurl.model import ImportedDay, LinkFields, NewLink, link_values
from snapurl.store.cluster.pool import Pool, Row
from snapurl.store.queries import load_queries

SQL = load_queries("links")

Column = Sequence[Any] | None


async def create_row(pool: Pool, new: NewLink) -> Row:
    """Creates one link and returns the row of the answer. Raises ShardFailed."""
    rows = await pool.fetch(
        SQL["create"],
        slot_of(new.code),
        new.code,
        new.owner,
        new.created_by,
        new.token,
        *link_values(new.fields),
    )
    return rows[0]


async def create_rows(pool: Pool, links: Sequence[NewLink]) -> list[Row]:
    """Creates many links. Returns one row per link, in their order; new links share a row. Raises ShardFailed."""
    return _one_per_link(await pool.fetch(SQL["create_many"], *_columns(links)), len(links))


async def import_rows(pool: Pool, links: Sequence[NewLink]) -> list[Row]:
    """As `create_rows`, with the origin of each link."""
    slots, codes, owners, by, tokens, *fields = _columns(links)
    created_at = _nullable([new.origin.created_at for new in links])
    clicks = _nullable([new.origin.clicks for new in links])
    found = await pool.fetch(SQL["import"], slots, codes, owners, by, tokens, created_at, clicks, *fields)
    return _one_per_link(found, len(links))


async def import_day_rows(pool: Pool, days: Sequence[ImportedDay]) -> list[Row]:
    """Writes days of imported visits, in place of what is there. Returns one row per day, in their order."""
    slots = [slot_of(each.code) for each in days]
    columns = zip(*((each.code, each.day, each.clicks, each.bots) for each in days), strict=True)
    return _one_per_link(await pool.fetch(SQL["import_days"], slots, *columns), len(days))


def _one_per_link(found: Sequence[Row], count: int) -> list[Row]:
    """Returns the rows by place; the first is that of all places without one of their own."""
    first, *others = found
    rows = [first] * count
    for row in others:
        rows[row["place"]] = row
    return rows


def _columns(links: Sequence[NewLink]) -> tuple[Column, ...]:
    values = zip(*(link_values(new.fields) for new in links), strict=True)
    return (
        [slot_of(new.code) for new in links],
        [new.code for new in links],
        [new.owner for new in links],
        [new.created_by for new in links],
        [new.token for new in links],
        *(encode(column) for encode, column in zip(_ENCODERS, values, strict=True)),
    )


def _as_is(column: Sequence[Any]) -> Column:
    return column


def _nullable(column: Sequence[Any]) -> Column:
    """None if every element is None, as it mostly is: PostgreSQL then reads no array at all."""
    return None if column.count(None) == len(column) else column


def _arrays(column: Sequence[Sequence[str]]) -> Column:
    return _nullable([array_text(words) if words else None for words in column])


def _switches(column: Sequence[bool], default: bool) -> Column:
    """None if every element is the default, as it mostly is."""
    return None if column.count(default) == len(column) else column


_BY_DEFAULT: dict[object, Callable[[Sequence[Any]], Column]] = {
    None: _nullable,
    (): _arrays,
    True: partial(_switches, default=True),
    False: partial(_switches, default=False),
}
_ENCODERS = tuple(_BY_DEFAULT.get(field.default, _as_is) for field in fields(LinkFields))


def array_text(words: Sequence[str]) -> str:
    """Returns an array as a PostgreSQL literal: the arrays in an array of arrays must all have the same length."""
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return "{" + ",".join(f'"{word}"' for word in quoted) + "}"
