"""Repeats: how long a page waits before it sends a form again that nobody could answer, and how often. Pure.

The form counts its tries in a field. The pauses double, from what the refusal asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from snapurl.errors import SnapURLError

TRIES_MAX = 5  # of a page by itself; then a person must try again
PAUSE_S_MIN = 2
PAUSE_S_MAX = 30

FIELD = "tries"


@dataclass(frozen=True, slots=True)
class Retry:
    """When a page tries again: after `pause_s` seconds, None: never. `tries` is for the field of the form."""

    pause_s: int | None
    tries: int


NO_RETRY = Retry(None, 0)


def retry_of(refusal: SnapURLError | None, form: Mapping[str, str]) -> Retry:
    """Returns when a form is to be sent again."""
    if refusal is None or refusal.status != 503:
        return NO_RETRY
    text = form.get(FIELD, "")
    tries = int(text) if text.isdecimal() and len(text) < 3 else 0
    if tries >= TRIES_MAX:
        return NO_RETRY
    pause_s = max(PAUSE_S_MIN, ceil(refusal.retry_after_s or 0)) * 2**tries
    return Retry(min(pause_s, PAUSE_S_MAX), tries + 1)
