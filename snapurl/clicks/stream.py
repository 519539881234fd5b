"""The click stream in Redis: its keys, and an entry's spelling. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date

from ring.slots import slot_of
from snapurl.ports import ClickRow

FIELD = b"clicks"
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


def encode_entry(day: date, counts: Mapping[str, int]) -> str:
    return json.dumps({day.isoformat(): counts}, separators=(",", ":"))


def decode_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[ClickRow]:
    """The rows of one entry, one per day and code. Raises ValueError, KeyError, TypeError or
    AttributeError if it is malformed."""
    place = entry_place(entry_id)
    days = json.loads(fields[FIELD])
    return [
        ClickRow(slot_of(code), place, code, date.fromisoformat(day), _positive(clicks))
        for day, counts in days.items()
        for code, clicks in counts.items()
    ]


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
