"""What is read from a source: links, and rows that are none, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo


class FileRefused(ValueError):
    """The file as a whole cannot be read; the text says why."""


class RowRefused(ValueError):
    """A row cannot become a link; the text says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read what a source leaves open: times without a zone, and what is in the future."""

    zone: tzinfo
    now: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a source. `place` counts its rows from 1; `fault` says why it cannot be read, "" if it can."""

    place: int
    cells: Sequence[str]
    fault: str = ""


@dataclass(slots=True)
class Found:
    """A link of a source, in the words of its API here.

    Without a `code` it gets one that the service makes up. `domain` is the host that the source names, "" for none.
    `remarks` say what is not as it was in the source.
    """

    url: str
    code: str | None = None
    domain: str = ""
    title: str | None = None
    note: str | None = None
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    max_clicks: int | None = None
    clicks: int | None = None
    enabled: bool = True
    others: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
