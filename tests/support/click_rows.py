"""Rows of clicks as the click consumer has them."""

from __future__ import annotations

from collections.abc import Iterable

from snapurl.model import SourceClicks, SourceKind, Sources


def by_kind(found: Iterable[SourceClicks]) -> Sources:
    """Returns the sources of a row; those without a value are left out."""
    sources: dict[SourceKind, dict[str, int]] = {}
    for kind, value, clicks in found:
        if value:
            sources.setdefault(kind, {})[value] = clicks
    return sources
