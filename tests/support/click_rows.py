"""Rows of clicks as the click consumer has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.model import ClickRow, SourceClicks, SourceKind, Sources
from snapurl.store.clicks import ClickStore
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from tests.support.waits import until


def by_kind(found: Iterable[SourceClicks]) -> Sources:
    """Returns the sources of a row; those without a value are left out."""
    sources: dict[SourceKind, dict[str, int]] = {}
    for kind, value, clicks in found:
        if value:
            sources.setdefault(kind, {})[value] = clicks
    return sources


async def count_clicks(settings: Settings, code: str, rows: Sequence[ClickRow], stream: str = "test") -> None:
    """Counts clicks of a code at the shard that owns it, as the click consumer does."""
    slot = slot_of(code)
    shards = await Shards.connect(settings)
    try:
        clicks = ClickStore(shards, Router(shards, settings.busy_wait_ms))

        async def is_counted() -> bool:
            return (await clicks.apply(clicks.owner(slot), stream, {slot: rows})).counted == {slot}

        await until(is_counted)
    finally:
        await shards.close()
