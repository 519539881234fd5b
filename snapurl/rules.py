"""Rules: where a link leads whom. The first rule whose conditions all hold gives the target. Pure.

A rule is stored as JSON with the names of `CONDITIONS`, as the API has it; `http/schema/requests.py` checks it
before. What is known of a visitor is what its request says: nothing is stored, and a header that is left out
matches no condition.

A percentage is sticky: the same visitor (address and user agent) gets the same answer all day (UTC). Each rule
divides those whom no rule before has taken, independently of how that rule divided them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

from snapurl.clicks.agents import device_of, system_of
from snapurl.clicks.languages import preferred_language
from snapurl.clicks.sources import browser_of

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RULES_CACHED_MAX = 256  # links whose rules are kept as they are evaluated; the least recently used goes
QUERY_FIELDS_MAX = 50  # of a query; in one with more no parameter is found


@dataclass(frozen=True)
class Visitor:
    """What a request for a code says of its visitor. `now` has a time zone, `query` is as it was sent."""

    code: str
    address: str
    user_agent: bytes | None
    languages: str
    query: bytes
    now: datetime

    @cached_property
    def parameters(self) -> Mapping[str, Sequence[str]]:
        try:
            text = self.query.decode("ascii")
            return parse_qs(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return {}

    @cached_property
    def language(self) -> str:
        return preferred_language(self.languages)

    def share(self, place: int) -> float:
        """Returns a number from 0 to 100: the same for this visitor all day, and another for each rule, by its
        place."""
        day = self.now.astimezone(UTC).date().isoformat()
        words = f"{place} {self.code} {day} {self.address} ".encode()
        seed = words + (self.user_agent or b"")
        return int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") * 100 / 2**64


# -- conditions --------------------------------------------------------------------------------------------------

Condition = Callable[[Visitor], bool]


def _device(devices: Sequence[str]) -> Condition:
    return lambda visitor: device_of(visitor.user_agent) in devices


def _os(systems: Sequence[str]) -> Condition:
    return lambda visitor: system_of(visitor.user_agent) in systems


def _browser(families: Sequence[str]) -> Condition:
    return lambda visitor: browser_of(visitor.user_agent) in families


def _language(languages: Sequence[str]) -> Condition:
    """`de` holds for `de-AT`; `de-AT` does not for `de`."""
    ranges = tuple(language.lower() for language in languages)
    return lambda visitor: any(f"{visitor.language}-".startswith(f"{each}-") for each in ranges)


def _query(wanted: Mapping[str, str | None]) -> Condition:
    """Each parameter must be there: with the value, or with any value if it is None."""

    def holds(visitor: Visitor) -> bool:
        found = visitor.parameters
        return all(
            name in found if value is None else value in found.get(name, ()) for name, value in wanted.items()
        )

    return holds


def _after(moment: str) -> Condition:
    begin = datetime.fromisoformat(moment)
    return lambda visitor: visitor.now >= begin


def _before(moment: str) -> Condition:
    end = datetime.fromisoformat(moment)
    return lambda visitor: visitor.now < end


def _schedule(value: Mapping[str, Any]) -> Condition:
    """Weekdays and hours in a time zone. Hours `22:00` to `06:00` belong to the day on which they begin."""
    zone = ZoneInfo(value.get("time_zone") or "UTC")
    weekdays = tuple(map(WEEKDAYS.index, value.get("weekdays") or WEEKDAYS))
    begin, end = value.get("start") or "00:00", value.get("end") or "24:00"

    def holds(visitor: Visitor) -> bool:
        local = visitor.now.astimezone(zone)
        time, day = local.strftime("%H:%M"), local.weekday()
        if begin < end:
            return day in weekdays and begin <= time < end
        return (day in weekdays and time >= begin) or ((day - 1) % 7 in weekdays and time < end)

    return holds


CONDITIONS: dict[str, Callable[[Any], Condition]] = {
    "device": _device,
    "os": _os,
    "browser": _browser,
    "language": _language,
    "query": _query,
    "after": _after,
    "before": _before,
    "schedule": _schedule,
}
"""Makes each condition from its value in JSON. `percentage` is not among them: it depends on the place of the
rule."""


# -- rules -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    url: str
    conditions: tuple[Condition, ...]

    def holds(self, visitor: Visitor) -> bool:
        return all(condition(visitor) for condition in self.conditions)


def target_of(rules: str, visitor: Visitor) -> str | None:
    """Returns the URL of the first rule that holds, None if none does. Raises ValueError if `rules` cannot be
    read."""
    return next((rule.url for rule in _read(rules) if rule.holds(visitor)), None)


@lru_cache(maxsize=RULES_CACHED_MAX)
def _read(rules: str) -> tuple[_Rule, ...]:
    try:
        return tuple(_rule(item, place) for place, item in enumerate(json.loads(rules)))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("these rules cannot be read") from error


def _rule(item: Mapping[str, Any], place: int) -> _Rule:
    return _Rule(item["url"], tuple(_condition(name, value, place) for name, value in item["if"].items()))


def _condition(name: str, value: Any, place: int) -> Condition:
    if name == "percentage":
        return lambda visitor: visitor.share(place) < value
    return CONDITIONS[name](value)
