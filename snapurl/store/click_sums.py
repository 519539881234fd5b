"""Sums of clicks for one call to a shard: by link and day, and by domain, account and tag and day. Pure.

A shard could add up the groups itself, but to read every value of every link out of JSON takes it 100 us per link.
This module takes 2 to 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from snapurl.model import ClickRow, ClicksBySlot, Scope, Sources

# Kinds that are told beside those of SourceKind: the UTC hours of all clicks, and of those of bots.
HOUR = "hour"
BOT_HOUR = "bot_hour"
_encode = msgspec.json.Encoder().encode

Owner = tuple[str, tuple[str, ...]]
"""The account of a link, "" if it belongs to nobody, and the link's tags."""

NOBODY: Owner = ("", ())


@dataclass(slots=True)
class ClickSum:
    """Clicks, and what is told of them by kind and value."""

    clicks: int = 0
    bots: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add_row(self, row: ClickRow) -> None:
        hour = str(row.hour)
        told: dict[str, Mapping[str, int]] = {HOUR: {hour: row.clicks}}
        if row.bots:
            told[BOT_HOUR] = {hour: row.bots}
        self.add(row.clicks, row.bots, told)
        self.add(0, 0, row.sources)

    def add(self, clicks: int, bots: int, counts: Sources | Mapping[str, Mapping[str, int]]) -> None:
        self.clicks += clicks
        self.bots += bots
        for kind, more in counts.items():
            values = self.counts.get(kind)
            if values is None:
                self.counts[kind] = {**more}
                continue
            for value, count in more.items():
                values[value] = values.get(value, 0) + count


LinkSums = dict[tuple[int, str, date], ClickSum]
"""Slot, code, day -> what the link got on that day; in the order of their keys."""

GroupSums = dict[tuple[str, str, date], ClickSum]
"""Scope, key, day -> what all links of the group got; in the order of their keys."""


def link_sums(rows_of: ClicksBySlot) -> LinkSums:
    sums: LinkSums = {}
    for slot, rows in rows_of.items():
        for row in rows:
            key = (slot, row.code, row.day)
            found = sums.get(key)
            if found is None:
                found = sums[key] = ClickSum()
            found.add_row(row)
    return dict(sorted(sums.items(), key=lambda item: item[0]))


def group_sums(links: LinkSums, owners: Mapping[tuple[int, str], Owner]) -> GroupSums:
    """Returns the sums of links by what they have in common. Links that are not in `owners` belong to nobody."""
    alike: dict[tuple[date, str, Owner], ClickSum] = {}
    for (slot, code, day), each in links.items():
        domain = code.partition("/")[0] if "/" in code else ""
        common = (day, domain, owners.get((slot, code), NOBODY))
        found = alike.get(common)
        if found is None:
            found = alike[common] = ClickSum()
        found.add(each.clicks, each.bots, each.counts)
    sums: GroupSums = {}
    for (day, domain, owner), each in alike.items():
        for scope, name in _groups(domain, owner):
            key = (str(scope), name, day)
            found = sums.get(key)
            if found is None:
                found = sums[key] = ClickSum()
            found.add(each.clicks, each.bots, each.counts)
    return dict(sorted(sums.items(), key=lambda item: item[0]))


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
