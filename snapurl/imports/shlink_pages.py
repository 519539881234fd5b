"""Shlink's REST API as a source: the pages of its list of short URLs, oldest first. Pure: the reader is passed in.

Links that are made meanwhile come last. One that is deleted meanwhile moves all behind it to the front, and hides
one of them: then fewer links were read than the last page counts. Redirect rules are in no list; a link that has
some is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from snapurl.imports.cells import time_of
from snapurl.imports.columns import Columns
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused, VisitDays, add_visits

COLUMNS = (
    "dateCreated", "domain", "shortCode", "shortUrl", "longUrl", "title", "tags", "visits", "validSince",
    "validUntil", "maxVisits", "forwardQuery", "hasRedirectRules",
)  # fmt: skip

Fetch = Callable[[int], Mapping[str, Any]]
"""Returns the answer of `short-urls` for a page, from 1 on."""

FetchVisits = Callable[[str, str, int], Mapping[str, Any]]
"""Returns the answer of the visits of a code and a domain, "" for the default one, for a page from 1 on."""


class ShlinkPages:
    """The short URLs of a Shlink. `pages_read` of `pages` have been read."""

    def __init__(self, fetch: Fetch, reading: Reading, visits: FetchVisits | None = None) -> None:
        self.header: Sequence[str] = COLUMNS
        self.pages_read = 0
        self.pages = 1
        self._fetch = fetch
        self._fetch_visits = visits if reading.has_visits else None
        self._reading = reading
        self._columns = Columns(COLUMNS, reading)

    def rows(self) -> Iterator[Row]:
        """Yields the short URLs. Raises FileRefused for an answer that is not Shlink's."""
        place = total = 0
        while self.pages_read < self.pages:
            try:
                listed = self._fetch(self.pages_read + 1)["shortUrls"]
                found, self.pages = listed["data"], int(listed["pagination"]["pagesCount"])
                total = int(listed["pagination"]["totalItems"])
                rows = [_cells(item) for item in found]
            except (KeyError, TypeError, ValueError, AttributeError):
                raise FileRefused("the answer is not that of Shlink's API") from None
            for cells in rows:
                place += 1
                yield Row(place, cells)
            self.pages_read += 1
        if place < total:
            raise FileRefused(
                f"only {place:,} of {total:,} links were read, as some were deleted: run it again"
            )

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        found = self._columns.link(row.cells, "|")
        if found.code is None:
            raise RowRefused("it has no code")
        if row.cells[-1] == "true":
            found.remarks.append("its redirect rules are not imported")
        if self._fetch_visits is not None and found.clicks:
            add_visits(found, self._visits(row.cells[2], row.cells[1]).of(found.code))
        return found

    def _visits(self, code: str, domain: str) -> VisitDays:
        """Returns the visits of a link. Raises FileRefused."""
        assert self._fetch_visits is not None
        visits, page, pages = VisitDays(self._reading), 0, 1
        while page < pages:
            page += 1
            try:
                listed = self._fetch_visits(code, domain, page)["visits"]
                pages = int(listed["pagination"]["pagesCount"])
                for visit in listed["data"]:
                    moment = time_of(str(visit["date"]), self._reading)
                    if moment is not None:
                        visits.add(code, moment.date(), bots=int(visit.get("potentialBot") is True))
            except (KeyError, TypeError, ValueError, AttributeError):
                raise FileRefused("the answer is not that of Shlink's API") from None
        return visits


def _cells(item: Mapping[str, Any]) -> list[str]:
    meta = item.get("meta") or {}
    visits = (item.get("visitsSummary") or {}).get("total", item.get("visitsCount"))
    values = (
        item["dateCreated"], item.get("domain"), item["shortCode"], item.get("shortUrl"), item["longUrl"],
        item.get("title"), json.dumps(item.get("tags") or []), visits, meta.get("validSince"),
        meta.get("validUntil"), meta.get("maxVisits"), item.get("forwardQuery"), item.get("hasRedirectRules"),
    )  # fmt: skip
    return [_text(value) for value in values]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
