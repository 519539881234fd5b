"""Columns: which cell of a row says what, and the link that the cells make together. Pure.

Columns are found by their names, in whatever order. Case, spaces and signs do not count, so `Long URL`, `long_url`
and `longUrl` are one name. Where several columns could say the same, the first that is not empty does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from snapurl.imports import cells
from snapurl.imports.rows import FileRefused, Found, Reading, RowRefused

Names = Mapping[str, Sequence[str]]

NAMES: Names = {
    "code": ("code", "keyword", "slug", "alias", "shortcode", "backhalf", "address", "path", "slashtag"),
    "short": ("customlink", "custombitlink", "shorturl", "shortlink", "bitlink", "source", "link"),
    "url": ("url", "longurl", "target", "targeturl", "destination", "destinationurl", "originalurl"),
    "title": ("title", "name"),
    "description": ("description",),
    "note": ("note", "comments"),
    "tags": ("tags", "labels"),
    "created": ("createdat", "created", "timestamp", "date", "datecreated"),
    "starts": ("startsat", "validsince"),
    "expires": ("expiresat", "expires", "validuntil", "expirein", "expiry"),
    "clicks": ("clicks", "visits", "hits", "visitcount", "totalclicks"),
    "imported": ("importedclicks",),
    "max_clicks": ("maxclicks", "maxvisits"),
    "domain": ("domain", "host"),
    "enabled": ("enabled",),
    "off": ("archived", "banned", "disabled"),
    "deleted": ("deletedat",),
    "protected": ("haspassword", "password", "passwordenabled"),
}
"""By what a cell says: the names that its column may have."""

OWN = ("redirect_status", "expired_url", "forward_query", "forward_path", "rules")
"""Further fields of a link that only SnapURL's own files have."""

HEADER_CHARS_SHOWN = 200


def name_of(text: str) -> str:
    """Returns a column's name in the form in which names are compared."""
    return re.sub(r"[\s_\-]+", "", text.strip("\ufeff \t'\"")).lower()


class Columns:
    """The columns of one file. Raises FileRefused if none of them is the target."""

    def __init__(self, header: Sequence[str], reading: Reading, names: Names = NAMES) -> None:
        known = [name_of(name) for name in header]
        self._places = {
            said: tuple(place for name in candidates for place, it in enumerate(known) if it == name)
            for said, candidates in {**names, **{field: (name_of(field),) for field in OWN}}.items()
        }
        self._reading = reading
        self._width = len(header)
        if not self._places["url"]:
            shown = cells.plain_line(", ".join(header)[:HEADER_CHARS_SHOWN])
            raise FileRefused(
                f"no column is the target (such as `url` or `long_url`); the first row is: {shown}"
            )
        self.have_codes = bool(self._places["code"] or self._places["short"])

    def get(self, row: Sequence[str], said: str) -> str:
        """Returns what the row says of `said`, "" for nothing. A code may be any word, also `null`."""
        for place in self._places[said]:
            text = cells.plain(row[place]) if place < len(row) else ""
            if text and (said == "code" or not cells.is_empty(text)):
                return text
        return ""

    def link(self, row: Sequence[str], separator: str = "") -> Found:
        """Returns the link of a row. Raises RowRefused."""
        if len(row) > self._width and any(row[self._width :]):
            raise RowRefused("it has more cells than the file has columns: is a comma without quotes in it?")
        url = self.get(row, "url")
        if not url:
            raise RowRefused("it has no target")
        if self.get(row, "deleted"):
            raise RowRefused("the link was deleted")
        host, code = self._address(row)
        found = Found(url, code, host)
        remarks, reading = found.remarks, self._reading
        title, description = self.get(row, "title"), self.get(row, "description")
        note = self.get(row, "note") or (description if title else "")
        found.title = cells.line(title or description, cells.TITLE_CHARS_MAX, "title", remarks)
        found.note = cells.lines(note, remarks)
        found.tags = cells.tags(self.get(row, "tags"), remarks, separator)
        found.created_at = cells.creation(self.get(row, "created"), reading, remarks)
        found.starts_at = cells.time_of(self.get(row, "starts"), reading)
        found.expires_at = cells.time_of(self.get(row, "expires"), reading)
        self._count(row, found)
        self._switch(row, found)
        self._own(row, found)
        return found

    def _address(self, row: Sequence[str]) -> tuple[str, str | None]:
        """Returns the host and the code, None if the row has none."""
        host = cells.host(self.get(row, "domain"))
        if code := self.get(row, "code"):
            if code == "_root":
                raise RowRefused("it is the address of the domain itself, which has no code")
            if not host and (short := self.get(row, "short")):
                with suppress(RowRefused):
                    host, _ = cells.address(short)
            try:
                return host, cells.code(code).strip("/")
            except UnicodeDecodeError:
                raise RowRefused("the code cannot be read") from None
        if short := self.get(row, "short"):
            named, code = cells.address(short)
            return host or named, code
        return host, None

    def _count(self, row: Sequence[str], found: Found) -> None:
        """Sets clicks and what is left of their limit."""
        counts = [cells.count(self.get(row, said), found.remarks) for said in ("clicks", "imported")]
        known = [number for number in counts if number is not None]
        found.clicks = sum(known) if known else None
        found.max_clicks = cells.limit(self.get(row, "max_clicks"))
        if found.max_clicks is not None and (used := counts[0] or 0):
            left = found.max_clicks - used
            found.max_clicks = max(1, left)
            found.remarks.append(f"of its clicks {max(0, left):,} are left")
            if left <= 0:
                found.enabled = False
                found.remarks.append("it is used up: it is switched off")

    def _switch(self, row: Sequence[str], found: Found) -> None:
        """Switches the link off if it does not lead everybody to its target where it comes from."""
        if cells.flag(self.get(row, "enabled")) is False:
            found.enabled = False
        for place in self._places["off"]:
            if place < len(row) and self._is_on(row[place]):
                found.enabled = False
                found.remarks.append("it is archived or disabled there: it is switched off")
                break
        if any(place < len(row) and self._is_on(row[place]) for place in self._places["protected"]):
            found.enabled = False
            found.remarks.append("it has a password there, which nobody can read: it is switched off")

    @staticmethod
    def _is_on(text: str) -> bool:
        """Whether a cell says yes. What is neither yes nor no, such as the hash of a password, is a yes."""
        try:
            return cells.flag(cells.plain(text)) is True
        except RowRefused:
            return True

    def _own(self, row: Sequence[str], found: Found) -> None:
        for field in OWN:
            if text := self.get(row, field):
                found.others[field] = _own_value(field, text)


def _own_value(field: str, text: str) -> object:
    if field == "expired_url":
        return text
    if field == "rules":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise RowRefused("its rules are no JSON") from None
    if field == "redirect_status":
        if not re.fullmatch(r"[0-9]{3}", text):
            raise RowRefused(f"{text[:40]!r} is no status of a redirect")
        return int(text)
    return cells.flag(text)
