"""Reads files that tests have made: what becomes of each row."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

from snapurl.imports.catalogue import SOURCES
from snapurl.imports.rows import Found, Reading, RowRefused
from snapurl.imports.visit_files import VISIT_FILES

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


def read(source: str, content: str | bytes, reading: Reading = Reading(UTC, NOW)) -> list[Found | str]:  # noqa: B008
    """Returns what each row becomes: a link, or the reason why it is none."""
    raw = content if isinstance(content, bytes) else content.encode()
    opened = SOURCES[source](BytesIO(raw), reading)
    results: list[Found | str] = []
    for place, row in enumerate(opened.rows(), start=1):
        assert row.place == place
        try:
            results.append(opened.link(row))
        except RowRefused as refusal:
            results.append(str(refusal))
    return results


def links(source: str, content: str | bytes) -> list[Found]:
    """As `read`, for files all of whose rows are links."""
    found = read(source, content)
    assert not [why for why in found if isinstance(why, str)], found
    return [link for link in found if isinstance(link, Found)]


def with_visits(source: str, content: str, visits: str | bytes) -> list[Found]:
    """Returns the links of a file, with the visits of a second one. Raises FileRefused."""
    raw = visits if isinstance(visits, bytes) else visits.encode()
    reading = Reading(UTC, NOW)
    opened = VISIT_FILES[source](SOURCES[source](BytesIO(content.encode()), reading), BytesIO(raw), reading)
    return [opened.link(row) for row in opened.rows()]
