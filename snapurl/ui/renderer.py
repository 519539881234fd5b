"""Renders the templates: Jinja2 with autoescape, where an undefined name is an error; filters for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from snapurl.ui.cluster_filters import FILTERS
from snapurl.ui.forms import path_of

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_UNITS = (
    (365 * _DAY_S, "year"),
    (30 * _DAY_S, "month"),
    (_DAY_S, "day"),
    (_HOUR_S, "hour"),
    (_MINUTE_S, "minute"),
)


def make_environment(asset: Callable[[str], str], clock: Callable[[], datetime]) -> Environment:
    """Returns the environment of all templates. `asset` returns the address of a static file."""
    environment = Environment(
        loader=PackageLoader("snapurl.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["asset"] = asset
    environment.filters |= FILTERS
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "distance": lambda moment: distance(moment, clock()),
        "iso": lambda moment: f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "moment": lambda moment: f"{moment.astimezone(UTC):%-d %b %Y, %H:%M} UTC",
        "day": lambda day: f"{day:%-d %b %Y}",
        "target": shown_target,
    }
    environment.filters["path"] = path_of
    environment.filters["rules"] = shown_rules
    return environment


def distance(moment: datetime, now: datetime) -> str:
    """Returns how far a moment is from now, in one unit: "3 hours ago", "in 2 days", "now"."""
    seconds = (now - moment).total_seconds()
    for length_s, unit in _UNITS:
        if abs(seconds) >= length_s:
            number = int(abs(seconds) // length_s)
            words = f"{number} {unit}{'' if number == 1 else 's'}"
            return f"{words} ago" if seconds > 0 else f"in {words}"
    return "now"


def shown_rules(text: str) -> str:
    """Returns how many rules a link has, as it stores them."""
    number = len(json.loads(text))
    return f"{number} rule{'' if number == 1 else 's'}"


def shown_target(url: str) -> str:
    """Returns a URL as people read it: without scheme, `www.` and a trailing slash."""
    parts = urlsplit(url)
    rest = url[len(parts.scheme) + 3 :].removeprefix("www.")
    return rest.removesuffix("/")
