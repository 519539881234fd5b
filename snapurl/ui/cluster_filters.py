"""How numbers of the cluster are written for people. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from snapurl.ui.cluster_view import parts, short_duration

NOT_KNOWN = "\N{EN DASH}"


def milliseconds(value: float | None) -> str:
    """Returns a time in ms: `0.42 ms`, `8 ms`; a dash if it is not known."""
    if value is None:
        return NOT_KNOWN
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def rate(value: float) -> str:
    """Returns a number per second, without decimals from 10 on."""
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}"


def share(value: float | None) -> str:
    """Returns a part of a whole in percent; a dash if it is not known."""
    return NOT_KNOWN if value is None else parts(value)


def readable_bytes(count: float) -> str:
    """Returns bytes in a readable unit: `9.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def unbroken(text: str) -> str:
    """Returns a text that breaks no line between a number and its unit."""
    return re.sub(r"(?<=[0-9]) (?=%|(?:ms|min|s|h)\b)", "\N{NO-BREAK SPACE}", text)


FILTERS: dict[str, Callable[[Any], str]] = {
    "duration": short_duration,
    "ms": milliseconds,
    "percent": share,
    "rate": rate,
    "size": readable_bytes,
    "unbroken": unbroken,
}
"""Name in templates -> filter."""
