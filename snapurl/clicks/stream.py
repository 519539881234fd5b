"""The click stream in Redis: its keys, and an entry's spelling. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

from ring.slots import slot_of
from snapurl.clicks.origin import NONE
from snapurl.clicks.tally import Sources
from snapurl.model import ClickRow, SourceClicks, SourceKind

FIELD = b"clicks"
SOURCES_FIELD = b"sources"
SHIPMENT_FIELD = b"shipment"
VALUE_CHARS_MAX = 255  # of a source, as the shards take them
_SEQUENCE_BITS = 20


def name_key(namespace: str) -> str:
    """Where the name of the stream is kept."""
    return f"snapurl:{namespace}:clicks:name"


def worker_key(namespace: str, worker: str) -> str:
    """Where the number of a worker's last entry is kept."""
    return f"snapurl:{namespace}:clicks:worker:{worker}"


def lease_key(namespace: str) -> str:
    """Where the consumer that works says so."""
    return f"snapurl:{namespace}:clicks:lease"


def alive_key(namespace: str, host: str) -> str:
    """Where a consumer of that host says that it works or stands by."""
    return f"snapurl:{namespace}:clicks:alive:{host}"


def encode_entry(day: date, counts: Mapping[str, int]) -> str:
    return json.dumps({day.isoformat(): counts}, separators=(",", ":"))


def encode_sources(day: date, sources: Mapping[str, Sources]) -> str:
    """A field of its own: a consumer that does not know it counts the clicks all the same."""
    listed = {
        code: [[*source, clicks] for source, clicks in found.items()] for code, found in sources.items()
    }
    return json.dumps({day.isoformat(): listed}, separators=(",", ":"))


def decode_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[ClickRow]:
    """The rows of one entry, one per day and code. Raises ValueError, KeyError, TypeError or
    AttributeError if it is malformed. An entry may come without sources, from a worker that does not know them."""
    place = entry_place(entry_id)
    counted = json.loads(fields[FIELD])
    found = json.loads(fields.get(SOURCES_FIELD, b"{}"))
    rows: list[ClickRow] = []
    for text, counts in counted.items():
        day, sources = date.fromisoformat(text), found.get(text, {})
        rows += [
            ClickRow(slot_of(code), place, code, day, _positive(clicks), _by_kind(sources.get(code, ())))
            for code, clicks in counts.items()
        ]
    return rows


def _by_kind(sources: Sequence[tuple[str, str, int]]) -> tuple[SourceClicks, ...]:
    """What requests do not say is left out: it is all that is missing from the clicks."""
    found: dict[tuple[SourceKind, str], int] = {}
    for referrer, browser, clicks in sources:
        _positive(clicks)
        if referrer != NONE:
            key = SourceKind.REFERRER, str(referrer)[:VALUE_CHARS_MAX]
            found[key] = found.get(key, 0) + clicks
        if browser != NONE:
            key = SourceKind.BROWSER, str(browser)[:VALUE_CHARS_MAX]
            found[key] = found.get(key, 0) + clicks
    return tuple(SourceClicks(kind, value, clicks) for (kind, value), clicks in found.items())


def _positive(clicks: object) -> int:
    if not isinstance(clicks, int) or clicks < 1:
        raise ValueError(f"{clicks!r} clicks")
    return clicks


def entry_place(entry_id: bytes) -> int:
    """`ms-sequence` as one number that sorts alike and fits a bigint: 43 bits of ms, 20 of sequence."""
    ms, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> _SEQUENCE_BITS:
        raise ValueError(f"entry {entry_id!r} is one too many in its millisecond")
    return int(ms) << _SEQUENCE_BITS | int(sequence)


def entry_id_of(place: int) -> str:
    """The id whose place it is."""
    return f"{place >> _SEQUENCE_BITS}-{place & ((1 << _SEQUENCE_BITS) - 1)}"
