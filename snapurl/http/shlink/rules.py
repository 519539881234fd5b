"""Redirect rules: Shlink's conditions and those of this service, and the handlers that read and write them.

Each is written in the other's terms where both mean the same. A rule with a condition that only one of them has is
refused: a rule that held for others than it says would lead people astray.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sanic import HTTPResponse

from snapurl.errors import VersionMismatch
from snapurl.http.schema.requests import LinkChange, check
from snapurl.http.shlink.call import Call, read_date, stamp
from snapurl.http.shlink.problems import ShlinkProblem, invalid
from snapurl.model import Link

RULES = "redirectRules"
ATTEMPTS = 3  # at a link that others change meanwhile
MOBILE = ["mobile", "tablet"]  # what Shlink means by a mobile device
SYSTEMS = ("android", "ios", "windows", "macos", "linux", "chromeos")
BROWSERS = ("chrome", "edge", "firefox", "opera", "safari", "samsung")

Condition = dict[str, Any]


async def show_rules(call: Call) -> HTTPResponse:
    return _answer(call, await call.context.services.links.get(call.context.code, call.owner))


async def write_rules(call: Call) -> HTTPResponse:
    service, key = call.context.services.links, call.context.code
    rules = [_rule_of(item) for item in _objects(call.fields.get(RULES))]
    patch = check(LinkChange, {"rules": rules}, call.context.rules()).as_patch()
    for attempt in range(ATTEMPTS):
        link = await service.get(key, call.owner)
        _shown(link)  # whoever could not see the rules must not replace them
        try:
            return _answer(call, await service.change(key, patch, link.version, call.owner, call.by))
        except VersionMismatch:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _answer(call: Call, link: Link) -> HTTPResponse:
    return call.answer({"defaultLongUrl": link.url, RULES: _shown(link)})


# -- from Shlink -------------------------------------------------------------------------------------------------


def _objects(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(RULES, "must be an array of objects")
    return value


def _rule_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a rule as the schema of this service takes it. Raises Invalid."""
    conditions: Condition = {}
    for given in _objects(item.get("conditions")):
        for name, value in _condition_of(given).items():
            if name == "query" and not value.keys() & conditions.get("query", {}).keys():
                conditions["query"] = {**conditions.get("query", {}), **value}
            elif name in conditions:
                raise invalid(RULES, f"a rule has two conditions of the kind {given['type']}: make two rules")
            else:
                conditions[name] = value
    return {"if": conditions, "url": item.get("longUrl")}


def _condition_of(given: Mapping[str, Any]) -> Condition:
    """Returns one condition by its name. Raises Invalid."""
    kind, key, value = (_text(given, name) for name in ("type", "matchKey", "matchValue"))
    if (read := _READ.get(kind)) is None:
        raise invalid(RULES, f"there is no condition {kind[:50]} here: there are {', '.join(_READ)}")
    return read(key, value)


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(RULES, f"{name} must be a string")
    return value or ""


def _device(_: str, value: str) -> Condition:
    if value in SYSTEMS:
        return {"os": [value]}
    if value not in ("mobile", "desktop"):
        raise invalid(RULES, f"there is no device {value[:50]} here")
    return {"device": MOBILE if value == "mobile" else [value]}


def _browser(_: str, value: str) -> Condition:
    if value not in BROWSERS:
        raise invalid(RULES, f"there is no browser {value[:50]} here: there are {', '.join(BROWSERS)}")
    return {"browser": [value]}


_READ: dict[str, Callable[[str, str], Condition]] = {
    "device": _device,
    "browser": _browser,
    "language": lambda _, value: {"language": [value]},
    "query-param": lambda key, value: {"query": {key: value}},
    "any-value-query-param": lambda key, _: {"query": {key: None}},
    "after-date": lambda _, value: {"after": read_date(RULES, value).isoformat()},
    "before-date": lambda _, value: {"before": read_date(RULES, value).isoformat()},
}


# -- to Shlink ---------------------------------------------------------------------------------------------------


def _shown(link: Link) -> list[dict[str, Any]]:
    """Returns the rules of a link in Shlink's terms. Raises ShlinkProblem if it has none for one of them."""
    try:
        rules = json.loads(link.rules or "[]")
        return [
            {
                "longUrl": rule["url"],
                "priority": place,
                "conditions": [
                    shown for name, value in rule["if"].items() for shown in _conditions(name, value)
                ],
            }
            for place, rule in enumerate(rules, 1)
        ]
    except LookupError:
        detail = "The link has rules that Shlink cannot show: see them, and change them, in the dashboard."
        raise ShlinkProblem(409, "conflict", "The rules cannot be shown", detail) from None


def _conditions(name: str, value: Any) -> list[Condition]:
    """Returns a condition in Shlink's terms. Raises LookupError if it has none."""
    match name, value:
        case "device", ["desktop"]:
            return [_shlink("device", value="desktop")]
        case "device", devices if sorted(devices) == MOBILE:
            return [_shlink("device", value="mobile")]
        case "os", [system]:
            return [_shlink("device", value=system)]
        case (("browser" | "language"), [only]):
            return [_shlink(name, value=only)]
        case "query", parameters:
            return [
                _shlink("any-value-query-param", key)
                if wanted is None
                else _shlink("query-param", key, wanted)
                for key, wanted in parameters.items()
            ]
        case (("after" | "before"), moment):
            return [_shlink(f"{name}-date", value=stamp(read_date(RULES, moment)))]
    raise LookupError(name)


def _shlink(kind: str, key: str | None = None, value: str | None = None) -> Condition:
    return {"type": kind, "matchKey": key, "matchValue": value}
