"""The click stream in Redis: its keys, and the encoding of an entry. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from json.encoder import encode_basestring
from typing import Any

from ring.slots import slot_of
from snapurl.clicks.counts import Sources
from snapurl.clicks.sources import NONE
from snapurl.model import ClickRow, SourceClicks, SourceKind

FIELD = b"clicks"
BOTS_FIELD = b"bots"
SOURCES_FIELD = b"sources"
SHIPMENT_FIELD = b"shipment"
VALUE_CHARS_MAX = 255  # of a source; the shards' limit
_SEQUENCE_BITS = 20
_KINDS = {str(kind): kind for kind in SourceKind}
_CLICKS_MAX = 2**40  # of a row: no worker can count as many, and sums of them fit a bigint
_CODE_BYTES = len('"":{},') + len(str(_CLICKS_MAX))
_VALUE_BYTES = len(":,") + len(str(_CLICKS_MAX))
_KIND_BYTES = max(len(f'"{kind}":{{}},') for kind in SourceKind)


def name_key(namespace: str) -> str:
    """The key of the name of the current stream."""
    return f"snapurl:{namespace}:clicks:name"


def stream_name(namespace: str, unique: str) -> str:
    """A name for a stream. `unique` was never used before: a Redis that has lost its data gets a new stream."""
    return f"snapurl:{namespace}:clicks:{unique}"


def worker_key(namespace: str, worker: str) -> str:
    """The key of the number of a worker's last entry."""
    return f"snapurl:{namespace}:clicks:worker:{worker}"


def visitors_key(namespace: str, day: date, code: str) -> str:
    """The key of the visitors of a link on a day, as a HyperLogLog."""
    return f"snapurl:{namespace}:clicks:visitors:{day.isoformat()}:{code}"


def lease_key(namespace: str) -> str:
    """The key of the active consumer's lease."""
    return f"snapurl:{namespace}:clicks:lease"


def alive_key(namespace: str, host: str) -> str:
    """The key of the heartbeat of the consumer on `host`, active or on standby."""
    return f"snapurl:{namespace}:clicks:alive:{host}"


def salt_key(namespace: str, day: date) -> str:
    """The key of the salt of a day's visitors."""
    return f"snapurl:{namespace}:clicks:salt:{day.isoformat()}"


def visitors_bytes_key(namespace: str, day: date) -> str:
    """The key of the number of bytes that the visitors of a day take."""
    return f"snapurl:{namespace}:clicks:visitors-bytes:{day.isoformat()}"


def encode_counts(hour: datetime, counts: Mapping[str, int]) -> str:
    """Encodes `{hour: {code: clicks}}`; an empty text without counts."""
    return _encode(hour, counts) if counts else ""


def encode_sources(hour: datetime, sources: Mapping[str, Sources]) -> str:
    """Encodes `{hour: {code: {kind: {value: clicks}}}}`; an empty text without sources."""
    return _encode(hour, sources) if sources else ""


def _encode(hour: datetime, found: Mapping[str, Any]) -> str:
    return json.dumps({f"{hour:%Y-%m-%dT%H}": found}, separators=(",", ":"), ensure_ascii=False)


def encoded_bytes_max(code: str, sources: Sources | None) -> int:
    """Returns a bound of the bytes that a code with its bots and sources takes in the fields of an entry."""
    size = 3 * (len(code) + _CODE_BYTES)
    if sources is not None:
        for values in sources.values():
            size += _KIND_BYTES
            for value in values:
                text = encode_basestring(value)
                size += (len(text) if text.isascii() else len(text.encode())) + _VALUE_BYTES
    return size


def decode_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[ClickRow]:
    """Returns the rows of one entry, one per hour and code.

    Three JSON fields by hour (`2026-11-28T19`, UTC): `clicks` and `bots` as `{hour: {code: clicks}}`, `sources` as
    `{hour: {code: {kind: {value: clicks}}}}`. The last two may be absent. Clicks count whatever is wrong with the
    last two: bots beyond the clicks are cut, and a kind that is unknown or says more than the clicks is left out.

    An entry of an older worker names a day, and lists sources as `[referrer, browser, clicks]`. Its hour is that in
    which it was added, or the last one of its day if that is over.

    Raises ValueError, KeyError, TypeError or AttributeError if the entry is malformed.
    """
    place = entry_place(entry_id)
    counted = json.loads(fields[FIELD])
    bots_by_hour = json.loads(fields.get(BOTS_FIELD, b"{}"))
    sources_by_hour = json.loads(fields.get(SOURCES_FIELD, b"{}"))
    rows: list[ClickRow] = []
    for text, counts in counted.items():
        day, hour = _day_and_hour(text, place)
        bots, sources = bots_by_hour.get(text, {}), sources_by_hour.get(text, {})
        rows += [
            ClickRow(
                slot_of(code),
                place,
                code,
                day,
                _positive(clicks),
                _listed(sources[code], clicks) if code in sources else (),
                hour,
                min(_positive(bots[code]), clicks) if code in bots else 0,
            )
            for code, clicks in counts.items()
        ]
    return rows


def _day_and_hour(text: str, place: int) -> tuple[date, int]:
    day, _, hour = text.partition("T")
    found = date.fromisoformat(day)
    if hour:
        if int(hour) not in range(24):
            raise ValueError(f"hour {hour!r}")
        return found, int(hour)
    added = datetime.fromtimestamp((place >> _SEQUENCE_BITS) / 1000, UTC)
    return found, added.hour if added.date() == found else 23


def _listed(sources: Mapping[str, Mapping[str, int]] | list[Any], clicks: int) -> tuple[SourceClicks, ...]:
    """Returns the sources of a row with that many clicks. Clicks without a value are left out."""
    by_kind = _by_kind(sources) if isinstance(sources, list) else sources
    found: list[SourceClicks] = []
    for name, values in by_kind.items():
        kind = _KINDS.get(name)
        if kind is not None and sum(map(_positive, values.values())) <= clicks:
            found += [SourceClicks(kind, _text(value), n) for value, n in values.items() if value]
    return tuple(found)


def _text(value: str) -> str:
    """Returns a value as PostgreSQL can keep it: without NUL and lone surrogates, which somebody may have sent."""
    if not value.isascii():
        value = value.encode(errors="replace").decode()
    return value[:VALUE_CHARS_MAX].replace("\0", "?")


def _by_kind(sources: Sequence[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Sums the sources of an older worker."""
    found: dict[str, dict[str, int]] = {SourceKind.REFERRER: {}, SourceKind.BROWSER: {}}
    for referrer, browser, clicks in sources:
        for values, value in zip(found.values(), (referrer, browser), strict=True):
            if value != NONE:
                values[value] = values.get(value, 0) + _positive(clicks)
    return found


def _positive(clicks: object) -> int:
    if not isinstance(clicks, int) or not 1 <= clicks <= _CLICKS_MAX:
        raise ValueError(f"{clicks!r} clicks")
    return clicks


def entry_place(entry_id: bytes) -> int:
    """Packs `ms-sequence` into one number of the same order that fits a bigint: 43 bits of ms, 20 of sequence."""
    ms, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> _SEQUENCE_BITS:
        raise ValueError(f"entry {entry_id!r} exceeds the sequence numbers of its millisecond")
    return int(ms) << _SEQUENCE_BITS | int(sequence)


def entry_id_of(place: int) -> str:
    """Returns the entry id of a place: the inverse of `entry_place`."""
    return f"{place >> _SEQUENCE_BITS}-{place & ((1 << _SEQUENCE_BITS) - 1)}"
