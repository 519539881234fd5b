"""Rules: each condition with what browsers really send, and the first rule that holds."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, get_args

import pytest

from snapurl.clicks.agents import DEVICES, SYSTEMS, device_of, system_of
from snapurl.clicks.languages import preferred_language
from snapurl.clicks.sources import BROWSERS
from snapurl.http.schema import requests
from snapurl.rules import WEEKDAYS, Visitor, target_of

WINDOWS = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 "
    b"Safari/537.36 Edg/138.0.0.0"
)
MAC = (
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    b"Safari/605.1.15"
)
LINUX = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROMEBOOK = (
    b"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 "
    b"Safari/537.36"
)
IPHONE = (
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    b"Mobile/15E148 Safari/604.1"
)
IPAD = (
    b"Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 "
    b"Mobile/15E148 Safari/604.1"
)
PHONE = (
    b"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile "
    b"Safari/537.36"
)
TABLET = (
    b"Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
    b"Chrome/130.0.0.0 Safari/537.36"
)
FIREFOX_TABLET = b"Mozilla/5.0 (Android 14; Tablet; rv:140.0) Gecko/140.0 Firefox/140.0"
BOT = (
    b"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/138.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)
MONDAY = datetime.fromisoformat("2026-11-30T09:00:00+00:00")
URL = "https://example.org/"


@pytest.mark.parametrize(
    ("agent", "device", "system"),
    [
        (WINDOWS, "desktop", "windows"),
        (MAC, "desktop", "macos"),
        (LINUX, "desktop", "linux"),
        (CHROMEBOOK, "desktop", "chromeos"),
        (IPHONE, "mobile", "ios"),
        (IPAD, "tablet", "ios"),
        (PHONE, "mobile", "android"),
        (TABLET, "tablet", "android"),
        (FIREFOX_TABLET, "tablet", "android"),
        (b"Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "mobile", "android"),
        (
            b"Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 950) Mobile Edge/15",
            "mobile",
            "windows",
        ),
        (BOT, "", ""),
        (b"curl/8.5.0", "", ""),
        (b"", "", ""),
        (None, "", ""),
    ],
)
def test_a_user_agent_says_device_and_system(agent: bytes | None, device: str, system: str) -> None:
    """Device and operating system are those of the browser; bots and programs have neither."""
    assert (device_of(agent), system_of(agent)) == (device, system)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de-at"),
        ("en;q=0.5, fr", "fr"),
        ("*, pt-BR;q=0.2", "pt-br"),
        ("en;q=0, de;q=0.1", "de"),
        ("", ""),
        ("x" * 9 + ",1, ;q=1", ""),
    ],
)
def test_the_language_is_the_one_that_is_preferred(header: str, language: str) -> None:
    """The language with the highest weight counts, of equals the first."""
    assert preferred_language(header) == language


@pytest.mark.parametrize(
    ("conditions", "visitor", "holds"),
    [
        ({"device": ["mobile", "tablet"]}, {"user_agent": IPAD}, True),
        ({"device": ["mobile"]}, {"user_agent": WINDOWS}, False),
        ({"device": ["desktop"]}, {"user_agent": None}, False),
        ({"os": ["ios"]}, {"user_agent": IPHONE}, True),
        ({"os": ["ios"]}, {"user_agent": BOT}, False),
        ({"browser": ["edge"]}, {"user_agent": WINDOWS}, True),
        ({"browser": ["chrome"]}, {"user_agent": WINDOWS}, False),
        ({"browser": ["samsung"]}, {"user_agent": TABLET}, True),
        ({"language": ["de"]}, {"languages": "de-AT"}, True),
        ({"language": ["DE-at"]}, {"languages": "de-AT"}, True),
        ({"language": ["de-AT"]}, {"languages": "de"}, False),
        ({"language": ["d"]}, {"languages": "de"}, False),
        ({"language": ["de"]}, {}, False),
        ({"query": {"a": "1"}}, {"query": b"b=2&a=1"}, True),
        ({"query": {"a": "ü x"}}, {"query": b"a=%C3%BC+x"}, True),
        ({"query": {"a": None}}, {"query": b"a"}, True),
        ({"query": {"a": "1", "b": "1"}}, {"query": b"a=1&b=2"}, False),
        ({"query": {"a": None}}, {"query": b"x&" * 60 + b"a"}, False),
        ({"query": {"a": None}}, {"query": b"\xff&a"}, False),
        ({"after": "2026-11-30T09:00:00Z"}, {}, True),
        ({"after": "2026-11-30T10:00:01+01:00"}, {}, False),
        ({"before": "2026-11-30T09:00:00Z"}, {}, False),
        ({"after": "2026-11-01T00:00:00Z", "before": "2026-12-01T00:00:00Z"}, {}, True),
        ({"schedule": {"weekdays": ["mon"]}}, {}, True),
        ({"schedule": {"weekdays": ["tue", "sun"]}}, {}, False),
        ({"schedule": {"weekdays": ["mon"], "start": "09:00", "end": "09:01"}}, {}, True),
        ({"schedule": {"start": "09:01"}}, {}, False),
        ({"schedule": {"start": "10:00", "end": "11:00", "time_zone": "Europe/Berlin"}}, {}, True),
        ({"schedule": {"weekdays": ["tue"], "time_zone": "Pacific/Kiritimati"}},
         {"now": datetime.fromisoformat("2026-11-30T10:00:00+00:00")}, True),
        ({"schedule": {"weekdays": ["mon"], "start": "22:00", "end": "06:00"}},
         {"now": datetime.fromisoformat("2026-12-01T05:59:00+00:00")}, True),
        ({"schedule": {"weekdays": ["mon"], "start": "22:00", "end": "06:00"}},
         {"now": datetime.fromisoformat("2026-11-30T05:59:00+00:00")}, False),
        ({"schedule": {"weekdays": ["mon"], "start": "22:00", "end": "06:00"}},
         {"now": datetime.fromisoformat("2026-11-30T22:00:00+00:00")}, True),
        ({"os": ["ios"], "language": ["de"]}, {"user_agent": IPHONE, "languages": "en"}, False),
    ],
)  # fmt: skip
def test_a_condition_holds_for_those_it_names(
    conditions: dict[str, Any], visitor: dict[str, Any], holds: bool
) -> None:
    """A rule holds if each of its conditions does; what a request does not say fits none."""
    rules = json.dumps([{"if": conditions, "url": URL}])
    assert target_of(rules, someone(**visitor)) == (URL if holds else None)


def someone(**fields: Any) -> Visitor:
    known = {
        "code": "a",
        "address": "192.0.2.1",
        "user_agent": LINUX,
        "languages": "",
        "query": b"",
        "now": MONDAY,
    }
    return Visitor(**{**known, **fields})


def test_the_first_rule_that_holds_wins() -> None:
    """Of several rules that hold the first gives the target."""
    rules = [
        {"if": {"os": [name]}, "url": f"{URL}{place}"} for place, name in enumerate(("ios", "linux", "linux"))
    ]
    assert target_of(json.dumps(rules), someone()) == URL + "1"


def test_a_percentage_is_sticky_for_a_day_and_divides_the_rest() -> None:
    """Half of a half is a quarter; a visitor gets the same answer all day, and another day another."""
    rules = json.dumps([{"if": {"percentage": 50}, "url": URL + side} for side in ("a", "b")])
    visitors = [someone(address=f"192.0.2.{n % 250}", user_agent=b"agent %d" % n) for n in range(4_000)]
    found = [target_of(rules, visitor) for visitor in visitors]
    shares = [found.count(url) / len(found) for url in (URL + "a", URL + "b", None)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.04)
    later = [
        someone(address=each.address, user_agent=each.user_agent, now=MONDAY.replace(hour=23))
        for each in visitors
    ]
    assert [target_of(rules, visitor) for visitor in later] == found
    next_day = [
        someone(address=each.address, user_agent=each.user_agent, now=MONDAY.replace(day=29))
        for each in visitors
    ]
    assert [target_of(rules, visitor) for visitor in next_day] != found


@pytest.mark.parametrize("rules", ["", "{", "{}x", '[{"if":{"moon":1},"url":"x"}]', '[{"url":"x"}]', "[1]"])
def test_rules_that_cannot_be_read_are_an_error(rules: str) -> None:
    """Rules that the service would not have written are an error, not a redirect to somewhere."""
    with pytest.raises(ValueError):
        target_of(rules, someone())


def test_the_schema_knows_every_condition() -> None:
    """The schema offers the devices, systems, browsers and weekdays that the rules tell apart."""
    assert get_args(requests.Device) == DEVICES
    assert get_args(requests.System) == SYSTEMS
    assert get_args(requests.Weekday) == WEEKDAYS
    assert set(get_args(requests.Family)) < set(BROWSERS)
