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
        self._given = tuple((said, places) for said, places in self._places.items() if places)
        self._own = tuple(field for field in OWN if self._places[field])
        self._has_switches = bool(self._places["off"] or self._places["protected"])
        self._reading = reading
        self._width = len(header)
        if not self._places["url"]:
            shown = cells.plain_line(", ".join(header)[:HEADER_CHARS_SHOWN])
            raise FileRefused(
                f"no column is the target (such as `url` or `long_url`); the first row is: {shown}"
            )
        self.have_codes = bool(self._places["code"] or self._places["short"])

    def _said(self, row: Sequence[str]) -> dict[str, str]:
        """Returns what the row says, without what is empty. A code may be any word, also `null`."""
        found: dict[str, str] = {}
        for said, places in self._given:
            for place in places:
                text = cells.plain(row[place]) if place < len(row) else ""
                if text and (said == "code" or not cells.is_empty(text)):
                    found[said] = text
                    break
        return found

    def link(self, row: Sequence[str], separator: str = "") -> Found:
        """Returns the link of a row. Raises RowRefused."""
        if len(row) > self._width and any(row[self._width :]):
            raise RowRefused("it has more cells than the file has columns: is a comma without quotes in it?")
        said = self._said(row)
        url = said.get("url")
        if url is None:
            raise RowRefused("it has no target")
        if "deleted" in said:
            raise RowRefused("the link was deleted")
        host, code = _address(said)
        found = Found(url, code, host)
        remarks, reading = found.remarks, self._reading
        _describe(said, found, separator)
        if created := said.get("created"):
            found.created_at = cells.creation(created, reading, remarks)
        if starts := said.get("starts"):
            found.starts_at = cells.time_of(starts, reading)
        if expires := said.get("expires"):
            found.expires_at = cells.time_of(expires, reading)
        _count(said, found)
        if "enabled" in said and cells.flag(said["enabled"]) is False:
            found.enabled = False
        if self._has_switches:
            self._switch(row, found)
        for field in self._own:
            if text := said.get(field):
                found.others[field] = _own_value(field, text)
        return found

    def _switch(self, row: Sequence[str], found: Found) -> None:
        """Switches the link off if it does not lead everybody to its target where it comes from."""
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


def _address(said: Mapping[str, str]) -> tuple[str, str | None]:
    """Returns the host and the code, None if the row has none."""
    host = cells.host(said.get("domain", ""))
    if code := said.get("code"):
        if code == "_root":
            raise RowRefused("it is the address of the domain itself, which has no code")
        if not host and (short := said.get("short")):
            with suppress(RowRefused):
                host, _ = cells.address(short)
        try:
            return host, cells.code(code).strip("/")
        except UnicodeDecodeError:
            raise RowRefused("the code cannot be read") from None
    if short := said.get("short"):
        named, code = cells.address(short)
        return host or named, code
    return host, None


def _describe(said: Mapping[str, str], found: Found, separator: str) -> None:
    """Sets what is there for people."""
    remarks = found.remarks
    title, description = said.get("title", ""), said.get("description", "")
    note = said.get("note") or (description if title else "")
    if title or description:
        found.title = cells.line(title or description, cells.TITLE_CHARS_MAX, "title", remarks)
    if note:
        found.note = cells.lines(note, remarks)
    if tags := said.get("tags"):
        found.tags = cells.tags(tags, remarks, separator)


def _count(said: Mapping[str, str], found: Found) -> None:
    """Sets clicks and what is left of their limit."""
    counted = cells.count(said.get("clicks", ""), found.remarks)
    imported = cells.count(said.get("imported", ""), found.remarks)
    if counted is not None or imported is not None:
        found.clicks = (counted or 0) + (imported or 0)
    if "max_clicks" not in said:
        return
    found.max_clicks = cells.limit(said["max_clicks"])
    if found.max_clicks is not None and (used := counted or 0):
        left = found.max_clicks - used
        found.max_clicks = max(1, left)
        found.remarks.append(f"of its clicks {max(0, left):,} are left")
        if left <= 0:
            found.enabled = False
            found.remarks.append("it is used up: it is switched off")


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
