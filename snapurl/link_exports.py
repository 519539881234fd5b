"""Exports: links and their clicks by day as rows of a CSV file, from the bodies of the API. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from snapurl.imports.cells import tags as read_tags

Body = Mapping[str, Any]

COLUMNS = (
    "code", "domain", "short_url", "url", "title", "tags", "created_at", "expires_at", "starts_at", "enabled",
    "redirect_status", "expired_url", "note", "forward_query", "forward_path", "max_clicks", "has_password",
    "rules", "clicks", "imported_clicks", "account", "created_by", "changed_at", "changed_by", "deleted_at",
    "renamed_to",
)  # fmt: skip
SHLINK = ("createdAt", "domain", "shortCode", "shortUrl", "longUrl", "title", "tags", "visits")
DAYS = ("code", "domain", "day", "clicks", "bots", "visitors", "imported_clicks", "imported_bots")


def spreadsheet_cell(text: str) -> str:
    """Returns a value that strangers choose for a CSV file: no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def rows_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as they stand in a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def link_row(link: Body) -> list[object]:
    """Returns a link as a row of COLUMNS, which `snapurl import csv` reads again."""
    return [_tags(link[name]) if name == "tags" else _cell(link[name]) for name in COLUMNS]


def shlink_row(link: Body) -> list[object]:
    """Returns a link as a row of SHLINK."""
    values = (link["created_at"], _host(link), link["code"], link["short_url"], link["url"], link["title"])
    return [
        *map(_cell, values),
        _cell("|".join(link["tags"])),
        link["clicks"] + (link["imported_clicks"] or 0),
    ]


def day_rows(link: Body, stats: Body) -> Iterator[Sequence[object]]:
    """Yields a row of DAYS per day; what has become a month is on its first day."""
    days: dict[str, Counter[str]] = {}
    parts = (("", "start", stats["series"]), ("", "month", stats["months"]))
    for prefix, start, counted in (*parts, ("imported_", "start", stats["imported"]["series"])):
        for each in counted:
            numbers = {prefix + name: each[name] for name in ("clicks", "bots", "visitors") if each.get(name)}
            days.setdefault(each[start], Counter()).update(numbers)
    for day in sorted(days):
        yield (_cell(stats["code"]), _host(link), day, *(days[day][name] for name in DAYS[3:]))


def _cell(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return spreadsheet_cell(value)
        case list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value


def _tags(tags: Sequence[str]) -> object:
    """Returns tags joined by |, or as JSON where they would be read as others."""
    text = "|".join(tags)
    is_plain = read_tags(text, []) == tuple(tags)
    return _cell(text) if is_plain else json.dumps(tags, ensure_ascii=False)


def _host(link: Body) -> str:
    return link["domain"] or urlsplit(link["short_url"]).hostname or ""
