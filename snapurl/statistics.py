"""Statistics: what was counted for a link, or for all links of a group, in a period."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from snapurl.links import LinkService
from snapurl.model import SourceClicks, SourceKind
from snapurl.periods import DateRange, DayCounts, Report, clicks_of_dates
from snapurl.store.statistics import Group, SourceTotals, StatisticsStore


class Statistics:
    def __init__(self, links: LinkService, store: StatisticsStore) -> None:
        self._links = links
        self._store = store

    async def of_link(
        self,
        code: str,
        owner: str | None,
        period: DateRange,
        *,
        compare: bool = False,
        kinds: Sequence[SourceKind] = (),
        limit: int = 0,
    ) -> Report:
        """Returns what was counted for a link, also a deleted one. Of each kind at most `limit` values.

        With `compare` the period has both bounds. Raises NotFound, Unavailable.
        """
        await self._links.own(code, owner)
        asked = period.with_previous() if compare else period
        dates = period.first, period.last
        found, totals = await asyncio.gather(
            self._store.days_of_link(code, asked), self._store.values_of_link(code, dates, kinds, limit)
        )
        return _report(found, totals, period, compare, kinds, limit)

    async def of_group(
        self,
        group: Group,
        period: DateRange,
        *,
        compare: bool = False,
        kinds: Sequence[SourceKind] = (),
        limit: int = 0,
    ) -> Report:
        """As `of_link`, for all links of a group. Raises Unavailable if no shard answers."""
        asked = period.with_previous() if compare else period
        dates = period.first, period.last
        (found, silent), totals = await asyncio.gather(
            self._store.days_of_group(group, asked), self._store.values_of_group(group, dates, kinds, limit)
        )
        report = _report(found, totals, period, compare, kinds, limit)
        missing = tuple(sorted({*silent, *totals.silent}))
        return Report(report.series, report.previous, report.sources, report.days, missing)


def _report(
    found: Sequence[DayCounts],
    totals: SourceTotals,
    period: DateRange,
    compare: bool,
    kinds: Sequence[SourceKind],
    limit: int,
) -> Report:
    days = [each for each in found if not each.is_month and period.has(each.day)]
    clicks = clicks_of_dates(period, found)
    sources = list(totals.values)
    sources += [
        SourceClicks(kind, "", rest) for kind in kinds if (rest := clicks - totals.totals.get(kind, 0)) > 0
    ]
    sources.sort(key=lambda item: (item.kind, -item.clicks, item.value))
    shown = [item for kind in kinds for item in [each for each in sources if each.kind is kind][:limit]]
    previous = period.before().series(found) if compare else None
    return Report(period.series(found), previous, shown, days)
