"""The click stream in Redis: its keys, and the encoding of an entry. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from json.encoder import encode_basestring
from typing import Annotated, Any, TypeVar

import msgspec

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceKind, Sources

T = TypeVar("T")

FIELD = b"clicks"
BOTS_FIELD = b"bots"
SOURCES_FIELD = b"sources"
SHIPMENT_FIELD = b"shipment"
VALUE_CHARS_MAX = 255  # of a source; the shards' limit
_SEQUENCE_BITS = 20
_CLICKS_MAX = 2**40  # of a row: no worker can count as many, and sums of them fit a bigint
_Count = Annotated[int, msgspec.Meta(ge=1, le=_CLICKS_MAX)]
_encode_json = msgspec.json.Encoder().encode
_decode_counts = msgspec.json.Decoder(dict[str, dict[str, _Count]]).decode
_Value = Annotated[str, msgspec.Meta(min_length=1, max_length=VALUE_CHARS_MAX)]
_Values = Annotated[dict[_Value, _Count], msgspec.Meta(min_length=1)]
_decode_sources = msgspec.json.Decoder(dict[str, dict[str, dict[SourceKind, _Values]]]).decode
# What another version may have written, of which only the unknown is left out.
_decode_any_sources = msgspec.json.Decoder(dict[str, dict[str, dict[str, dict[str, _Count]]]]).decode
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


def encode_counts(hour: datetime, counts: Mapping[str, int]) -> bytes:
    """Encodes `{hour: {code: clicks}}`; empty without counts."""
    return _encode(hour, counts) if counts else b""


def encode_sources(hour: datetime, sources: Mapping[str, Sources]) -> bytes:
    """Encodes `{hour: {code: {kind: {value: clicks}}}}`; empty without sources."""
    return _encode(hour, sources) if sources else b""


def _encode(hour: datetime, found: Mapping[str, Any]) -> bytes:
    return _encode_json({f"{hour:%Y-%m-%dT%H}": found})


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

    Raises ValueError, KeyError or TypeError if the clicks are malformed.
    """
    place = entry_place(entry_id)
    counted = _decode_counts(fields[FIELD])
    bots_by_hour = _decoded(_decode_counts, fields.get(BOTS_FIELD, b"{}"))
    sources_by_hour = _sources_in(fields.get(SOURCES_FIELD, b"{}"))
    rows: list[ClickRow] = []
    for text, counts in counted.items():
        day, hour = _day_and_hour(text)
        bots, sources = bots_by_hour.get(text, {}), sources_by_hour.get(text, {})
        rows += [
            ClickRow(
                slot_of(code),
                place,
                code,
                day,
                clicks,
                _at_most(clicks, sources[code]) if code in sources else {},
                hour,
                min(bots[code], clicks) if code in bots else 0,
            )
            for code, clicks in counts.items()
        ]
    return rows


def _decoded(decode: Callable[[bytes], dict[str, dict[str, T]]], field: bytes) -> dict[str, dict[str, T]]:
    """Returns what a field tells beside the clicks; nothing if it is malformed."""
    try:
        return decode(field)
    except msgspec.MsgspecError:
        return {}


def _sources_in(field: bytes) -> dict[str, dict[str, dict[SourceKind, dict[str, int]]]]:
    """Returns hour -> code -> sources, as PostgreSQL can keep them."""
    if rb"\u" not in field:  # which may be a NUL
        try:
            return _decode_sources(field)
        except msgspec.ValidationError:
            pass
    return {
        hour: {code: _kept(sources) for code, sources in by_code.items()}
        for hour, by_code in _decoded(_decode_any_sources, field).items()
    }


def _kept(sources: Mapping[str, Mapping[str, int]]) -> dict[SourceKind, dict[str, int]]:
    """Returns the sources of the kinds that are known, with their values cut."""
    found: dict[SourceKind, dict[str, int]] = {}
    for kind in SourceKind:
        for value, clicks in sources.get(kind, {}).items():
            if value:
                text = value[:VALUE_CHARS_MAX].replace("\0", "?")
                values = found.setdefault(kind, {})
                values[text] = values.get(text, 0) + clicks
    return found


def _at_most(clicks: int, sources: dict[SourceKind, dict[str, int]]) -> Sources:
    """Returns the sources without the kinds that say more than the clicks."""
    if max(map(sum, map(dict.values, sources.values())), default=0) <= clicks:
        return sources
    return {kind: values for kind, values in sources.items() if sum(values.values()) <= clicks}


def _day_and_hour(text: str) -> tuple[date, int]:
    day, _, hour = text.partition("T")
    if int(hour) not in range(24):
        raise ValueError(f"hour {hour!r}")
    return date.fromisoformat(day), int(hour)


def entry_place(entry_id: bytes) -> int:
    """Packs `ms-sequence` into one number of the same order that fits a bigint: 43 bits of ms, 20 of sequence."""
    ms, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> _SEQUENCE_BITS:
        raise ValueError(f"entry {entry_id!r} exceeds the sequence numbers of its millisecond")
    return int(ms) << _SEQUENCE_BITS | int(sequence)


def entry_id_of(place: int) -> str:
    """Returns the entry id of a place: the inverse of `entry_place`."""
    return f"{place >> _SEQUENCE_BITS}-{place & ((1 << _SEQUENCE_BITS) - 1)}"
