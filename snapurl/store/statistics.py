"""Statistics in the shards: what was counted for a link, or for all links of a group, by day and by source.

A link's are on the shard of its slot. A group's are on every shard (`migrations/0023_click_sources.sql`), and are
summed up here. Old days have become months (`folds.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ring.slots import slot_of
from snapurl.errors import NotFound
from snapurl.groups import Group, TagClicks
from snapurl.model import Scope, Share, SourceClicks, SourceKind
from snapurl.periods import DateRange, DayCounts
from snapurl.store.batching.bulk import repeat_or_refuse
from snapurl.store.cluster.fanout import every_row_once
from snapurl.store.cluster.pool import Row
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("statistics")
KEYS_PER_SHARD_MAX = 1_000  # of a scope
VALUES_PER_SHARD_MAX = 5_000  # of a kind, those with the most clicks there


@dataclass(frozen=True, slots=True)
class SourceTotals:
    """The values of some kinds with the most clicks, and by kind the clicks of all its values.

    `silent` are the shards whose part is missing.
    """

    values: list[SourceClicks]
    totals: dict[SourceKind, int]
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClickTotals:
    """All clicks of each link or key of a scope that has any, and those of bots among them.

    `silent` are the shards whose part is missing.
    """

    totals: Mapping[str, tuple[int, int]]
    silent: tuple[str, ...]


class StatisticsStore:
    """Raises Unavailable if the shard of a link does not answer, or no shard does."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def days_of_link(self, code: str, period: DateRange) -> list[DayCounts]:
        """Returns the UTC days that have clicks and may have a part of the period, oldest first; also the months
        that days have become."""
        slot, args = slot_of(code), (*period.utc_days, period.needs_hours)
        rows = await self._router.read(slot, lambda pool: pool.fetch(SQL["days_of_link"], slot, code, *args))
        return [_counts(row, row["visitors"]) for row in rows if row["day"] is not None]

    async def imported_days_of_link(self, code: str, period: DateRange) -> list[DayCounts]:
        """Returns what another service had counted for a link on the days of the period, oldest first."""
        slot, days = slot_of(code), period.utc_days
        rows = await self._router.read(
            slot, lambda pool: pool.fetch(SQL["imported_days_of_link"], slot, code, *days)
        )
        return [DayCounts(row["day"], row["clicks"], row["bots"]) for row in rows if row["day"] is not None]

    async def values_of_link(
        self, code: str, days: tuple[date | None, date | None], kinds: Sequence[SourceKind], limit: int
    ) -> SourceTotals:
        """Returns at most `limit` values of each kind."""
        if not kinds:
            return SourceTotals([], {})
        slot = slot_of(code)
        rows = await self._router.read(
            slot, lambda pool: pool.fetch(SQL["values_of_link"], slot, code, *days, list(kinds), limit)
        )
        found = [row for row in rows if row["kind"] is not None]
        return SourceTotals(
            [SourceClicks(SourceKind(row["kind"]), row["value"], row["clicks"]) for row in found],
            {SourceKind(row["kind"]): row["total"] for row in found},
        )

    async def share_of_link(self, code: str) -> Share | None:
        """Returns the public link to a link's statistics; None if there is none."""
        slot = slot_of(code)
        rows = await self._router.read(slot, lambda pool: pool.fetch(SQL["share_of_link"], slot, code))
        return _share(rows[0])

    async def set_share(self, code: str, owner: str | None, secret: str | None, by: str) -> Share | None:
        """Makes the public link to a link's statistics, or leaves the one that there is; without `secret` revokes
        it. Returns the one that there is then.

        `owner` None is an admin, `by` the id of a key. Raises NotFound, also for a link of another account,
        Unavailable, OutcomeUnknown if it may be done: then repeat it.
        """
        slot = slot_of(code)
        args = (slot, code, owner, secret, by)

        async def write() -> Sequence[Row]:
            return await self._router.at_owner(slot, lambda pool: pool.fetch(SQL["share"], *args))

        (row,) = await repeat_or_refuse(write)
        if row["outcome"] == "missing":
            raise NotFound()
        return _share(row)

    async def days_of_group(self, group: Group, period: DateRange) -> tuple[list[DayCounts], tuple[str, ...]]:
        """As `days_of_link`; also returns the shards whose part is missing."""
        args = (group.scope, group.key, *period.utc_days, period.needs_hours)
        listed = await every_row_once(self._shards, SQL["days_of_group"], args)
        days: dict[tuple[date, bool], list[DayCounts]] = {}
        for row in listed.answers:
            days.setdefault((row["day"], not row["is_month"]), []).append(_counts(row, None))
        return [_sum(days[day]) for day in sorted(days)], listed.silent

    async def values_of_group(
        self, group: Group, days: tuple[date | None, date | None], kinds: Sequence[SourceKind], limit: int
    ) -> SourceTotals:
        """As `values_of_link`, of at most VALUES_PER_SHARD_MAX values per shard."""
        if not kinds:
            return SourceTotals([], {})
        args = (group.scope, group.key, *days, list(kinds), VALUES_PER_SHARD_MAX)
        listed = await every_row_once(self._shards, SQL["values_of_group"], args)
        sums: Counter[tuple[SourceKind, str]] = Counter()
        totals: Counter[SourceKind] = Counter()
        for row in listed.answers:
            sums[SourceKind(row["kind"]), row["value"]] += row["clicks"]
            totals[SourceKind(row["kind"])] += row["clicks"]
        shown: Counter[SourceKind] = Counter()
        values = []
        for (kind, value), clicks in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
            shown[kind] += 1
            if shown[kind] <= limit:
                values.append(SourceClicks(kind, value, clicks))
        return SourceTotals(values, dict(totals), listed.silent)

    async def totals_of_links(self, codes: Sequence[str]) -> ClickTotals:
        """Returns what was counted for each of the links, of all time."""
        if not codes:
            return ClickTotals({}, ())
        args = (list(map(slot_of, codes)), list(codes))
        listed = await every_row_once(self._shards, SQL["totals_of_links"], args)
        return _totals(((row["code"], row) for row in listed.answers), listed.silent)

    async def totals_of_groups(self, scope: Scope, keys: Sequence[str] | None) -> ClickTotals:
        """Returns what was counted for each of the keys of a scope, None: for all its keys, of all time."""
        args = (scope, None if keys is None else list(keys))
        listed = await every_row_once(self._shards, SQL["totals_of_groups"], args)
        return _totals(((row["key"], row) for row in listed.answers), listed.silent)

    async def tags(
        self, account: str | None, days: tuple[date, date], limit: int
    ) -> tuple[list[TagClicks], tuple[str, ...]]:
        """Returns at most `limit` tags with the most clicks on these days, and the shards whose part is missing.

        They are those of the links of an account, or of all.

        Of each shard KEYS_PER_SHARD_MAX tags are read, those with the most clicks there.
        """
        scope, begin = (Scope.TAG, "") if account is None else (Scope.ACCOUNT_TAG, f"{account}/")
        args = (scope, begin, *days, KEYS_PER_SHARD_MAX)
        listed = await every_row_once(self._shards, SQL["keys_of_scope"], args)
        totals = _totals(((row["key"], row) for row in listed.answers), listed.silent).totals
        ordered = sorted(totals, key=lambda key: (-totals[key][0], key))
        return [TagClicks(key.removeprefix(begin), *totals[key]) for key in ordered[:limit]], listed.silent


def _share(row: Row) -> Share | None:
    return None if row["secret"] is None else Share(row["secret"], row["made_at"], row["made_by"])


def _totals(rows: Iterable[tuple[str, Row]], silent: tuple[str, ...]) -> ClickTotals:
    totals: dict[str, tuple[int, int]] = {}
    for name, row in rows:
        clicks, bots = totals.get(name, (0, 0))
        totals[name] = clicks + row["clicks"], bots + row["bots"]
    return ClickTotals(totals, silent)


def _counts(row: Row, visitors: int | None) -> DayCounts:
    parts = json.loads(row["hours"] or "[]")
    hours, bot_hours = (_sum_hours(each[kind] for each in parts if each[kind]) for kind in (0, 1))
    if visitors is not None:
        visitors = min(visitors, row["clicks"] - row["bots"])  # an estimate may be too high
    return DayCounts(row["day"], row["clicks"], row["bots"], visitors, hours, bot_hours, row["is_month"])


def _sum(counted: Sequence[DayCounts]) -> DayCounts:
    """Returns the sum of what several shards counted on one day, or in one month."""
    return DayCounts(
        counted[0].day,
        sum(each.clicks for each in counted),
        sum(each.bots for each in counted),
        None,
        _sum_hours(each.hours for each in counted),
        _sum_hours(each.bot_hours for each in counted),
        counted[0].is_month,
    )


def _sum_hours(found: Iterable[Mapping[Any, int]]) -> dict[int, int]:
    """Returns clicks by hour. The hours of what is found may be text, as in JSON."""
    sums: dict[int, int] = {}
    for hours in found:
        for hour, clicks in hours.items():
            sums[int(hour)] = sums.get(int(hour), 0) + clicks
    return sums
