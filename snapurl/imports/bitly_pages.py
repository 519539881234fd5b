"""Bitly's API as a source: the links of each group of a token, and their clicks by day. Pure: it is given a reader.

A link has a generated code and perhaps custom ones, each an address that works, so each custom one is a row; the
generated one is a row only where there is none. The clicks are those of all of them, and go to the first. Bitly
tells them for as long as the plan of the account allows, and does not tell those of bots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from snapurl.imports.bitly import BitlyFile
from snapurl.imports.cells import time_of
from snapurl.imports.columns import Columns
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused, VisitDays, add_visits

COLUMNS = ("bitlink", "custom_bitlink", "long_url", "title", "tags", "created_at", "archived", "clicks_of")
PAGE_LINKS = 100

Fetch = Callable[[str, Mapping[str, str]], Any]
"""Returns the answer of a path of the API, without a slash before it, for a query."""


class BitlyPages:
    """The links of a token. Of `groups`, `groups_read` have been read."""

    def __init__(self, fetch: Fetch, reading: Reading) -> None:
        self.header: Sequence[str] = COLUMNS
        self.groups_read = 0
        self.groups = 1
        self._fetch = fetch
        self._reading = reading
        self._columns = Columns(COLUMNS[:-1], reading)

    def rows(self) -> Iterator[Row]:
        """Yields a row per address. Raises FileRefused for an answer that is not Bitly's."""
        place = 0
        groups = self._read("groups", {}, lambda said: [str(group["guid"]) for group in said["groups"]])
        self.groups = max(1, len(groups))
        for group in groups:
            for item in self._links(group):
                for cells in item:
                    place += 1
                    yield Row(place, cells)
            self.groups_read += 1

    def _links(self, group: str) -> Iterator[list[list[str]]]:
        """Yields the rows of each link of a group."""
        query: dict[str, str] = {"size": str(PAGE_LINKS), "archived": "both"}
        seen: set[str] = set()
        while query:
            found, after = self._read(f"groups/{quote(group, safe='')}/bitlinks", query, _page)
            yield from found
            if after in seen:
                raise FileRefused("Bitly lists a page twice: run it again")
            seen.add(after)
            query = dict(parse_qsl(urlsplit(after).query))

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        *cells, bitlink = row.cells
        found = self._columns.link(cells)
        if found.code is None:
            raise RowRefused("it has no code")
        if found.domain in BitlyFile.shared_hosts:
            found.domain = ""
        if bitlink and self._reading.has_visits:
            add_visits(found, self._days_of(bitlink))
        return found

    def _days_of(self, bitlink: str) -> Mapping[Any, tuple[int, int]] | None:
        visits = VisitDays(self._reading)

        def take(said: Mapping[str, Any]) -> None:
            for each in said["link_clicks"]:
                moment, clicks = time_of(str(each["date"]), self._reading), int(each["clicks"])
                if moment is not None and clicks > 0:
                    visits.add("", moment.date(), clicks=clicks)

        self._read(f"bitlinks/{quote(bitlink)}/clicks", {"unit": "day", "units": "-1"}, take)
        return visits.of("")

    def _read(self, path: str, query: Mapping[str, str], taken: Callable[[Any], Any]) -> Any:
        """Returns what is taken of an answer. Raises FileRefused if it is not Bitly's."""
        said = self._fetch(path, query)
        try:
            return taken(said)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FileRefused("the answer is not that of Bitly's API") from None


def _page(said: Mapping[str, Any]) -> tuple[list[list[list[str]]], str]:
    """Returns the rows of each link of a page, and the URL of the next page, "" for none."""
    return [list(_rows_of(item)) for item in said["links"]], str(said["pagination"].get("next") or "")


def _rows_of(item: Mapping[str, Any]) -> Iterator[list[str]]:
    bitlink, customs = str(item["id"]), [str(each) for each in item.get("custom_bitlinks") or []]
    shown = (
        item.get("long_url"),
        item.get("title"),
        json.dumps(item.get("tags") or []),
        item.get("created_at"),
    )
    rest = ["" if value is None else str(value) for value in shown]
    for number, custom in enumerate(customs or [""]):
        clicks_of = "" if number else bitlink
        yield [bitlink, custom, *rest, "true" if item.get("archived") is True else "false", clicks_of]
