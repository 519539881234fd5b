"""Renders the templates: Jinja2 with autoescape, where an undefined name is an error; filters for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from snapurl.ui.cluster_filters import FILTERS
from snapurl.ui.forms import in_zone, path_of

_ZONE: ContextVar[tzinfo] = ContextVar("zone of the times on a page", default=UTC)
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
    environment.globals["zone"] = lambda: getattr(
        _ZONE.get(), "key", ""
    )  # the name of the one that was chosen
    environment.filters |= FILTERS
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "distance": lambda moment: distance(moment, clock()),
        "iso": lambda moment: f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "moment": lambda moment: f"{moment.astimezone(_ZONE.get()):%-d %b %Y, %H:%M %Z}",
        "utc": lambda moment: f"{moment.astimezone(UTC):%-d %b %Y, %H:%M} UTC",
        "typed": lambda text: in_zone(text, _ZONE.get()),
        "day": lambda day: f"{day:%-d %b %Y}",
        "target": shown_target,
    }
    environment.filters["path"] = path_of
    environment.filters["rules"] = shown_rules
    return environment


@contextmanager
def times_in(zone: tzinfo) -> Iterator[None]:
    """Within it, pages are rendered with their times in that zone."""
    token = _ZONE.set(zone)
    try:
        yield
    finally:
        _ZONE.reset(token)


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
