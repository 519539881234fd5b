"""Sums of clicks for one call to a shard: by link and day, and by domain, account and tag and day. Pure.

A shard could add up the groups itself, but to read every value of every link out of JSON takes it 100 us per link.
This module takes 2 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple, cast

import msgspec

from snapurl.model import ClickRow, ClicksBySlot, Scope

# Kinds that are told beside those of SourceKind: the UTC hours of all clicks, and of those of bots.
HOUR = "hour"
BOT_HOUR = "bot_hour"
_encode = msgspec.json.Encoder().encode

Owner = tuple[str, tuple[str, ...]]
"""The account of a link, "" if it belongs to nobody, and the link's tags."""

NOBODY: Owner = ("", ())


Counts = Mapping[str, Mapping[str, int]]
"""Kind -> value -> clicks."""


class ClickSum(NamedTuple):
    """Clicks, those of bots among them, and what is told of them."""

    clicks: int
    bots: int
    counts: Counts


LinkSums = dict[tuple[int, str, date], ClickSum]
"""Slot, code, day -> what the link got on that day; in the order of their keys."""

GroupSums = dict[tuple[str, str, date], ClickSum]
"""Scope, key, day -> what all links of the group got; in the order of their keys."""


def link_sums(rows_of: ClicksBySlot) -> LinkSums:
    sums: LinkSums = {}
    for slot in sorted(rows_of):
        parts: dict[tuple[str, date], list[ClickSum]] = {}
        for row in rows_of[slot]:
            parts.setdefault((row.code, row.day), []).append(_sum_of(row))
        for code, day in sorted(parts):
            sums[slot, code, day] = _total(parts[code, day])
    return sums


def group_sums(links: LinkSums, owners: Mapping[tuple[int, str], Owner]) -> GroupSums:
    """Returns the sums of links by what they have in common. Links that are not in `owners` belong to nobody."""
    alike: dict[tuple[date, str, Owner], list[ClickSum]] = {}
    for (slot, code, day), each in links.items():
        domain = code.partition("/")[0] if "/" in code else ""
        alike.setdefault((day, domain, owners.get((slot, code), NOBODY)), []).append(each)
    parts: dict[tuple[str, str, date], list[ClickSum]] = {}
    for (day, domain, owner), found in alike.items():
        each = _total(found)
        for scope, name in _groups(domain, owner):
            parts.setdefault((str(scope), name, day), []).append(each)
    return {key: _total(parts[key]) for key in sorted(parts)}


def _sum_of(row: ClickRow) -> ClickSum:
    hour = str(row.hour)
    hours = {HOUR: {hour: row.clicks}}
    if row.bots:
        hours[BOT_HOUR] = {hour: row.bots}
    return ClickSum(row.clicks, row.bots, cast(Counts, {**hours, **row.sources}))


def _total(parts: Sequence[ClickSum]) -> ClickSum:
    if len(parts) == 1:
        return parts[0]
    counts: dict[str, dict[str, int]] = {}
    for part in parts:
        for kind, more in part.counts.items():
            values = counts.get(kind)
            if values is None:
                counts[kind] = {**more}
                continue
            for value, clicks in more.items():
                values[value] = values.get(value, 0) + clicks
    return ClickSum(sum(part.clicks for part in parts), sum(part.bots for part in parts), counts)


def _groups(domain: str, owner: Owner) -> Iterator[tuple[Scope, str]]:
    """What clicks on a link count for. Tags of links without an account are not counted: strangers choose them."""
    account, tags = owner
    yield Scope.DOMAIN, domain
    if account:
        yield Scope.ACCOUNT, account
        for tag in tags:
            yield Scope.TAG, tag
            yield Scope.ACCOUNT_TAG, f"{account}/{tag}"


def columns(sums: LinkSums | GroupSums) -> tuple[Sequence[object], ...]:
    """Returns the parts of the keys, the clicks, those of bots, and the objects of what is told, as parallel
    arrays."""
    return (
        *([key[part] for key in sums] for part in range(3)),
        [each.clicks for each in sums.values()],
        [each.bots for each in sums.values()],
        [_encode(each.counts).decode() for each in sums.values()],
    )
