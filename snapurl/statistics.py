"""Statistics: what was counted for a link, or for all links of a group, in a period."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from hmac import compare_digest
from secrets import token_urlsafe

from snapurl.errors import Gone, NotFound
from snapurl.groups import Group, TagClicks
from snapurl.links import LinkService
from snapurl.model import Link, Scope, Share, SourceClicks, SourceKind
from snapurl.periods import DateRange, DayCounts, Report
from snapurl.store.statistics import ClickTotals, SourceTotals, StatisticsStore

SECRET_BYTES = 16  # nobody guesses it


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
        has_bots: bool = True,
    ) -> Report:
        """Returns what was counted for a link, also a deleted one. Of each kind at most `limit` values.

        Without `has_bots` the values are those of people, and those of the kind BOT of bots. With `compare` the
        period has both bounds. Raises NotFound, Unavailable.
        """
        await self._links.own(code, owner)
        asked = period.with_previous() if compare else period
        dates = period.first, period.last
        found, totals, imported = await asyncio.gather(
            self._store.days_of_link(code, asked),
            self._store.values_of_link(code, dates, kinds, limit),
            self._store.imported_days_of_link(code, period),
        )
        report = _report(found, totals, period, _Wanted(compare, kinds, limit, has_bots))
        return replace(report, imported=period.series(imported))

    async def of_group(
        self,
        group: Group,
        period: DateRange,
        *,
        compare: bool = False,
        kinds: Sequence[SourceKind] = (),
        limit: int = 0,
        has_bots: bool = True,
    ) -> Report:
        """As `of_link`, for all links of a group. Raises Unavailable if no shard answers."""
        asked = period.with_previous() if compare else period
        dates = period.first, period.last
        (found, silent), totals = await asyncio.gather(
            self._store.days_of_group(group, asked), self._store.values_of_group(group, dates, kinds, limit)
        )
        report = _report(found, totals, period, _Wanted(compare, kinds, limit, has_bots))
        missing = tuple(sorted({*silent, *totals.silent}))
        return replace(report, silent=missing)

    # -- public links ----------------------------------------------------------------------------------------

    async def share_of(self, code: str, owner: str | None) -> Share | None:
        """Returns the public link to the statistics of a link, None if there is none.

        Raises NotFound, Unavailable.
        """
        await self._links.own(code, owner)
        return await self._store.share_of_link(code)

    async def share(self, code: str, owner: str | None, by: str) -> Share:
        """Makes the public link, or returns the one that there is. `by` is the id of a key.

        Raises NotFound, also for a deleted link, Unavailable, OutcomeUnknown.
        """
        made = await self._store.set_share(code, owner, token_urlsafe(SECRET_BYTES), by)
        assert made is not None
        return made

    async def revoke_share(self, code: str, owner: str | None, by: str) -> None:
        """Revokes the public link, if there is one: the next request for it finds nothing.

        Raises NotFound, Unavailable, OutcomeUnknown.
        """
        await self._store.set_share(code, owner, None, by)

    async def check_share(self, code: str, secret: str) -> Link:
        """Returns the link whose statistics the secret opens.

        Raises NotFound, also for a deleted link, Unavailable.
        """
        found = await self._store.share_of_link(code)
        if found is None or not compare_digest(found.secret.encode(), secret.encode()):
            raise NotFound()
        try:
            return await self._links.get(code, None)
        except Gone:
            raise NotFound() from None

    async def tags(self, account: str | None, days: tuple[date, date], limit: int) -> list[TagClicks]:
        """Returns the tags with the most clicks, of the links of an account or of all, as far as shards answer.

        Raises Unavailable if none does.
        """
        found, _ = await self._store.tags(account, days, limit)
        return found

    async def totals_of_links(self, codes: Sequence[str]) -> ClickTotals:
        """Returns all clicks of each of the links. Raises Unavailable if no shard answers."""
        return await self._store.totals_of_links(codes)

    async def totals_of_groups(self, scope: Scope, keys: Sequence[str] | None = None) -> ClickTotals:
        """Returns all clicks of each of the keys of a scope, None: of all its keys. Raises as `totals_of_links`."""
        return await self._store.totals_of_groups(scope, keys)


@dataclass(frozen=True, slots=True)
class _Wanted:
    compare: bool
    kinds: Sequence[SourceKind]
    limit: int
    has_bots: bool

    def whole(self, kind: SourceKind, days: Sequence[DayCounts]) -> int:
        """Returns the clicks that the values of a kind add up to, with those that are in no value."""
        clicks, bots = sum(each.clicks for each in days), sum(each.bots for each in days)
        if self.has_bots:
            return clicks
        return bots if kind is SourceKind.BOT else clicks - bots


def _report(found: Sequence[DayCounts], totals: SourceTotals, period: DateRange, wanted: _Wanted) -> Report:
    days = [each for each in found if not each.is_month and period.has(each.day)]
    known = [each for each in found if period.has_all_of(each)]
    wholes = {kind: wanted.whole(kind, known) for kind in wanted.kinds}
    sources = list(totals.values)
    sources += [
        SourceClicks(kind, "", rest)
        for kind, whole in wholes.items()
        if (rest := whole - totals.totals.get(kind, 0)) > 0
    ]
    sources.sort(key=lambda item: (item.kind, -item.clicks, item.value))
    shown = [
        item
        for kind in wanted.kinds
        for item in [each for each in sources if each.kind is kind][: wanted.limit]
    ]
    previous = period.before().series(found) if wanted.compare else None
    return Report(period.series(found), previous, shown, days, wholes=wholes)
