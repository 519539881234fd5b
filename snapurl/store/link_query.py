"""The statements of a `LinkQuery`: composed of the fixed parts below, while every value is an argument. Pure.

A statement says nothing of conditions that the query does not have, so that PostgreSQL plans for those that it has.
Which slots count comes as a bitmap, not as a join with `slots`: what a join keeps the planner would have to guess.

Text has no index, because one that finds parts of words (trigrams) would make a create dearer than all else that it
does (docs/design/lists.md). A search reads links in the order of the list instead, a chunk at a time: each chunk
returns the links that match, and its last link, where the next chunk begins.

The clicks of a link are in `click_totals`, and a link without clicks has no row there. So there are two ways to a
list by clicks. Of few links each has its clicks looked up, and they are sorted. Of many, the index of the totals is
walked in chunks, and each link looked up: it may be deleted, or not meet the conditions. The links without clicks
are a list of their own, before or behind the others: the newest links, walked in chunks, without those that have
a total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from ring.slots import SLOT_COUNT
from snapurl.model import LINK_COLUMNS, LinkOrder, LinkQuery, LinkState, PageKey
from snapurl.store.queries import clicks_of, link_columns

COLUMNS = link_columns("l")

_KEYS = {
    LinkOrder.CREATED: ("l.created_at", "l.code"),
    LinkOrder.CHANGED: ("coalesce(l.changed_at, l.created_at)", "l.code"),
    LinkOrder.CODE: ("l.code",),
    LinkOrder.CLICKS: ("l.clicks", "CASE WHEN l.clicks = 0 THEN l.created_at END", "l.code"),
}
_THERE = "l.deleted_at IS NULL"
_BEGUN = "l.enabled AND (l.starts_at IS NULL OR l.starts_at <= now())"
_STATES = {
    None: (_THERE,),
    LinkState.LIVE: (_THERE, _BEGUN, "(l.expires_at IS NULL OR l.expires_at > now())"),
    LinkState.EXPIRED: (_THERE, _BEGUN, "l.expires_at <= now()"),
    LinkState.SCHEDULED: (_THERE, "l.enabled", "l.starts_at > now()"),
    LinkState.DISABLED: (_THERE, "NOT l.enabled"),
    LinkState.DELETED: ("l.deleted_at IS NOT NULL",),
}
_HAS_TAGS = "l.tags <> '{{}}' AND "  # the condition of the index of tags
_CONDITIONS = (
    ("owner", "l.owner = {}"),
    ("account", "l.owner = {}"),
    # Most links are made by a key with an account of its own: the index of accounts finds those, another the rest.
    (
        "creator",
        "(l.created_by = {0} AND l.created_by <> l.owner"
        " OR l.owner = {0} AND coalesce(l.created_by, l.owner) = l.owner)",
    ),
    ("tags_any", f"{_HAS_TAGS}l.tags && {{}}::text[]"),
    ("tags_all", f"{_HAS_TAGS}l.tags @> {{}}::text[]"),
    ("tags_none", "NOT l.tags && {}::text[]"),
    ("created_from", "l.created_at >= {}"),
    ("created_to", "l.created_at < {}"),
    ("changed_from", "coalesce(l.changed_at, l.created_at) >= {}"),
    ("changed_to", "coalesce(l.changed_at, l.created_at) < {}"),
    ("expires_from", "l.expires_at >= {}"),
    ("expires_to", "l.expires_at < {}"),
)
"""Fields of a LinkQuery, each with what it demands of a row. One that is None or empty demands nothing."""


@dataclass(frozen=True, slots=True)
class Statement:
    sql: str
    args: tuple[Any, ...]


def page_of(query: LinkQuery, slots: Sequence[int], after: PageKey | None, limit: int) -> Statement:
    """Returns the statement that reads up to `limit` links after `after`, of those slots. It ignores the text."""
    args: list[Any] = []
    ordered = _ordered(query, slots, after, limit, args)
    return Statement(f"SELECT {COLUMNS} FROM ({ordered}) l ORDER BY {_order(query)}", tuple(args))


def chunk_of(
    query: LinkQuery,
    slots: Sequence[int],
    after: PageKey | None,
    rows: int,
    matches: int,
    *,
    are_unclicked: bool = False,
) -> Statement:
    """Returns the statement that searches the next `rows` links until it has `matches`.

    A link matches if it has the query's text and, if `are_unclicked`, no clicks. The statement's rows are links
    with the columns `is_match` and `is_last`: those that match, and the last of a full chunk.
    """
    args: list[Any] = []
    ordered = _ordered(query, slots, after, rows, args)
    last = _argument(args, rows)
    tests = [f"{clicks_of('l')} IS NULL"] if are_unclicked else []
    if query.text is not None:
        tests.append(_match(query, args))
    return Statement(
        f"SELECT {COLUMNS}, l.is_match, l.n = {last} AS is_last"
        f" FROM (SELECT l.*, {' AND '.join(tests)} AS is_match, row_number() OVER (ORDER BY {_order(query)}) AS n"
        f" FROM ({ordered}) l) l WHERE l.is_match OR l.n = {last}"
        f" ORDER BY {_order(query)} LIMIT {_argument(args, matches)}",
        tuple(args),
    )


def clicked_chunk_of(
    query: LinkQuery, slots: Sequence[int], after: PageKey | None, rows: int, matches: int
) -> Statement:
    """Returns the statement that walks the next `rows` totals until it has `matches` links of the query.

    Its rows are those of `chunk_of`. Of the last of a full chunk, `code` and `clicks` are always told.
    """
    args: list[Any] = []
    totals = [_in_slots("t.slot", slots, args)]
    if after is not None:
        key = f'{_argument(args, after.clicks)}::bigint, {_argument(args, after.code)}::text COLLATE "C"'
        totals.append(f"(t.clicks, t.code) {'>' if query.ascending else '<'} ({key})")
    order = _directed(("t.clicks", "t.code"), query)
    conditions = _conditions(query, slots, args)
    if query.text is not None:
        conditions.append(_match(query, args))
    columns = ", ".join(f"l.{column}" for column in LINK_COLUMNS if column != "code")
    last = _argument(args, rows)
    return Statement(
        f"SELECT t.code, t.clicks, {columns}, l.code IS NOT NULL AS is_match, t.n = {last} AS is_last"
        f" FROM (SELECT t.*, row_number() OVER (ORDER BY {order}) AS n"
        f" FROM (SELECT t.slot, t.code, t.clicks FROM click_totals t WHERE {' AND '.join(totals)}"
        f" ORDER BY {order} LIMIT {last}) t) t"
        f" LEFT JOIN LATERAL (SELECT * FROM links l WHERE l.slot = t.slot AND l.code = t.code"
        f" AND {' AND '.join(conditions)} LIMIT 1) l ON true"
        f" WHERE l.code IS NOT NULL OR t.n = {last} ORDER BY {order} LIMIT {_argument(args, matches)}",
        tuple(args),
    )


def unclicked_chunk_of(
    query: LinkQuery, slots: Sequence[int], after: PageKey | None, rows: int, matches: int
) -> Statement:
    """As `chunk_of`, for the links of the query that have no clicks: by the time of their creation."""
    return chunk_of(replace(query, order=LinkOrder.CREATED), slots, after, rows, matches, are_unclicked=True)


def counted_chunk_of(query: LinkQuery, slots: Sequence[int], after: PageKey | None, rows: int) -> Statement:
    """Returns the statement that counts which of the next `rows` links match the query's text.

    Its only row is the last of these links, with the columns `matches` and `read`; none if no links are left.
    """
    args: list[Any] = []
    ordered = _ordered(query, slots, after, rows, args)
    return Statement(
        f"SELECT {COLUMNS}, l.matches, l.read FROM ("
        f"SELECT l.*, count(*) FILTER (WHERE {_match(query, args)}) OVER () AS matches, count(*) OVER () AS read,"
        f" row_number() OVER (ORDER BY {_order(query)}) AS n FROM ({ordered}) l) l WHERE l.n = l.read",
        tuple(args),
    )


def count_of(query: LinkQuery, slots: Sequence[int], most: int) -> Statement:
    """Returns the statement that counts the links, up to `most` of them. It ignores the text."""
    args: list[Any] = []
    where = " AND ".join(_conditions(query, slots, args))
    limit = _argument(args, most)
    return Statement(f"SELECT count(*) FROM (SELECT FROM links l WHERE {where} LIMIT {limit}) q", tuple(args))


def estimate_of(query: LinkQuery, slots: Sequence[int]) -> Statement:
    """Returns the statement whose answer is the planner's JSON for all links of the query, without the text."""
    args: list[Any] = []
    # The planner would take it to be one more condition, and divide by what it leaves out.
    where = " AND ".join(_conditions(query, slots, args)).replace(_HAS_TAGS.format(), "")
    return Statement(f"EXPLAIN (FORMAT JSON) SELECT FROM links l WHERE {where}", tuple(args))


def tags_of(query: LinkQuery, slots: Sequence[int], prefix: str, most: int) -> Statement:
    """Returns the statement that counts the links of up to `most` tags that begin with `prefix`."""
    args: list[Any] = []
    conditions = [*_conditions(query, slots, args), "l.tags <> '{}'"]
    begins = f'starts_with(lower(t.tag COLLATE "C"), {_argument(args, ascii_lower(prefix))})'
    return Statement(
        f"SELECT t.tag, count(*) AS links FROM links l, unnest(l.tags) t (tag)"
        f" WHERE {' AND '.join([*conditions, begins])}"
        f' GROUP BY t.tag ORDER BY count(*) DESC, t.tag COLLATE "C" LIMIT {_argument(args, most)}',
        tuple(args),
    )


def ascii_lower(text: str) -> str:
    """Returns `text` as `lower(… COLLATE "C")` does: only A to Z are changed."""
    return text.encode().lower().decode()


def _ordered(
    query: LinkQuery, slots: Sequence[int], after: PageKey | None, limit: int, args: list[Any]
) -> str:
    conditions = _conditions(query, slots, args)
    rows = "links l"
    if query.order is LinkOrder.CLICKS:
        # The limit keeps this a look-up per link.
        rows = (
            "(SELECT l.*, coalesce(t.clicks, 0) AS clicks FROM links l LEFT JOIN LATERAL (SELECT * FROM"
            " click_totals t WHERE t.slot = l.slot AND t.code = l.code LIMIT 1) t ON true"
            f" WHERE {' AND '.join(conditions)}) l"
        )
        conditions = []
    if after is not None:
        conditions.append(_behind(query, after, args))
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM {rows} {where} ORDER BY {_order(query)} LIMIT {_argument(args, limit)}"


def _behind(query: LinkQuery, after: PageKey, args: list[Any]) -> str:
    """Returns the condition that a link comes after that key."""
    compare = ">" if query.ascending else "<"
    code = f'{_argument(args, after.code)}::text COLLATE "C"'
    if query.order is LinkOrder.CODE:
        return f"l.code {compare} {code}"
    if after.clicks:
        return f"(l.clicks, l.code) {compare} ({_argument(args, after.clicks)}::bigint, {code})"
    at = f"{_argument(args, after.at)}::timestamptz"
    if query.order is LinkOrder.CLICKS:
        behind = f"l.clicks = 0 AND (l.created_at, l.code) {compare} ({at}, {code})"
        return f"(l.clicks > 0 OR {behind})" if query.ascending else behind
    return f"({_KEYS[query.order][0]}, l.code) {compare} ({at}, {code})"


def _conditions(query: LinkQuery, slots: Sequence[int], args: list[Any]) -> list[str]:
    found = [_in_slots("l.slot", slots, args), *_STATES[query.state]]
    for name, condition in _CONDITIONS:
        if value := getattr(query, name):
            found.append(condition.format(_argument(args, value)))
    if query.domain is not None:
        found.append(_of_domain(query.domain, args))
    return found


def _of_domain(domain: str, args: list[Any]) -> str:
    """A range of keys: `0` follows the slash. For the default domain, whatever has no slash."""
    if not domain:
        return "l.code NOT LIKE '%/%'"
    first, end = (_argument(args, domain + sign) for sign in "/0")
    return f'l.code >= {first}::text COLLATE "C" AND l.code < {end}::text COLLATE "C"'


def _in_slots(column: str, slots: Sequence[int], args: list[Any]) -> str:
    return f"get_bit({_argument(args, _bitmap(slots))}::bytea, {column}) <> 0"


def _order(query: LinkQuery) -> str:
    return _directed(_KEYS[query.order], query)


def _directed(keys: Sequence[str], query: LinkQuery) -> str:
    return ", ".join(f"{key} {'ASC' if query.ascending else 'DESC'}" for key in keys)


def _match(query: LinkQuery, args: list[Any]) -> str:
    """Stored URLs are ASCII, so they are searched for the percent-encoded form of the text."""
    assert query.text
    text = _argument(args, ascii_lower(query.text))
    in_url = _argument(args, ascii_lower(quote(query.text, safe=_PRINTABLE)))
    return (
        f'(strpos(lower(l.url COLLATE "C"), {in_url}) > 0 OR strpos(lower(l.code), {text}) > 0'
        f' OR coalesce(strpos(lower(l.title COLLATE "C"), {text}) > 0, false)'
        f' OR coalesce(strpos(lower(l.note COLLATE "C"), {text}) > 0, false))'
    )


_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))


def _argument(args: list[Any], value: Any) -> str:
    """Adds an argument. Returns its placeholder."""
    args.append(list(value) if isinstance(value, tuple) else value)
    return f"${len(args)}"


def _bitmap(slots: Sequence[int]) -> bytes:
    """Returns one bit per slot, as `get_bit` counts them."""
    bits = bytearray(SLOT_COUNT // 8)
    for slot in slots:
        bits[slot >> 3] |= 1 << (slot & 7)
    return bytes(bits)
