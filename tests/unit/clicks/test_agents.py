"""Device, system, browser and bot of a click, from real user agents and made-up ones."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks import agents
from snapurl.clicks.agent_libraries import NAME_CHARS_MAX, bot_name, browser_name, load, system_name
from snapurl.clicks.agents import (
    DEVICES,
    NEW_MAX,
    NO_AGENT,
    OTHER_DEVICES,
    SYSTEMS,
    UNREAD,
    Agent,
    Agents,
    read_families,
)
from snapurl.clicks.sources import HEADER_BYTES_MAX

FILE = Path(__file__).with_name("user_agents.tsv.gz")
UNTOLD = "-"


@cache
def real() -> tuple[tuple[str, str, bytes], ...]:
    """Device, system and user agent of each line; the file says where they are from."""
    lines = gzip.decompress(FILE.read_bytes()).decode().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple((device, system, text.encode()[:HEADER_BYTES_MAX]) for _, device, system, text in rows)


@cache
def with_libraries() -> Callable[[bytes], Agent]:
    read = load()
    assert read is not None, "the development environment has the extra `analytics`"
    return read


READERS = pytest.mark.parametrize("reader", ["families", "libraries"])


def reader_of(name: str) -> Callable[[bytes], Agent]:
    return read_families if name == "families" else with_libraries()


@pytest.mark.parametrize(("reader", "wrong_max"), [("families", 0.02), ("libraries", 0.01)])
def test_real_user_agents_are_read_as_their_publishers_do(reader: str, wrong_max: float) -> None:
    """Of at least 2,000 real user agents nearly all have the device and the system that their publishers state, and
    nearly none is taken for a bot: without the libraries, some phones of before 2010 are."""
    assert len(real()) >= 2_000
    read = reader_of(reader)
    wrong: Counter[str] = Counter()
    for device, system, text in real():
        found = read(text)
        wrong["bot"] += bool(found.bot)
        wrong["device"] += device not in (UNTOLD, found.device) and not found.bot
        wrong["system"] += system not in (UNTOLD, found.system) and not found.bot
        assert found.bot or found.device in (*DEVICES, *OTHER_DEVICES, "*")
    assert max(wrong.values()) <= len(real()) * wrong_max, wrong


def test_each_bot_is_known_by_its_own_examples() -> None:
    """Every example of a bot in the list of bots is counted as a bot, under a short name that can be printed."""
    read = with_libraries()
    examples = [text for entry in CRAWLER_USER_AGENTS_DATA for text in entry["instances"]]
    assert len(examples) >= 2_000
    for text in examples:
        found = read(text.encode()[:HEADER_BYTES_MAX])
        assert found.bot and found == Agent(bot=found.bot), text
        assert found.bot.isprintable() and len(found.bot) <= NAME_CHARS_MAX


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"Googlebot\/", "Googlebot"),
        ("[wW]get", "wget"),
        ("^curl", "curl"),
        (r"Mail\.RU_Bot", "Mail.RU_Bot"),
        ("AdsBot-Google([^-]|$)", "AdsBot-Google"),
        (r"Mediapartners \(Googlebot\)", "Mediapartners (Googlebot)"),
        ("(sistrix|SISTRIX) [cC]rawler", "sistrix crawler"),
        ("Automaton|Newsify Feed Fetcher", "Automaton"),
        (r"ContextualBot[\s\S]*outcomes\.net", "ContextualBot"),
        (r"Rigor\)", "Rigor"),
        (r"^\/", "bot"),
    ],
)
def test_a_bot_is_named_by_its_pattern(pattern: str, name: str) -> None:
    """A bot's name is the text that its pattern matches."""
    assert bot_name(pattern) == name


@READERS
@pytest.mark.parametrize(
    ("text", "agent"),
    [
        (
            b"Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 Chrome/125.0.0.0 Mobile Safari/537.36",
            Agent("mobile", "android", "chrome"),
        ),
        (
            b"Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 "
            b"Mobile/15E148 Safari/604.1",
            Agent("tablet", "ios", "safari"),
        ),
        (
            b"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
            Agent("desktop", "windows", "firefox"),
        ),
        (
            b"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            b"Safari/537.36 Edg/140.0.0.0",
            Agent("desktop", "chromeos", "edge"),
        ),
        (
            b"Mozilla/5.0 (Linux; Android 14; BRAVIA 4K VH2) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
            Agent("tv", "android", "chrome"),
        ),
    ],
)
def test_names_are_the_same_with_and_without_the_libraries(reader: str, text: bytes, agent: Agent) -> None:
    """A common browser has the same device, system and browser whether the extra is installed or not."""
    assert reader_of(reader)(text) == agent


def test_families_of_one_browser_and_of_one_system_are_one() -> None:
    """The forms of a browser for phones are that browser, and all of Windows and of Linux is one system."""
    assert {browser_name(name) for name in ("chrome", "chrome mobile", "chrome mobile ios", "chromium")} == {
        "chrome"
    }
    assert {browser_name(name) for name in ("mobile safari", "mobile safari ui/wkwebview")} == {"safari"}
    assert [system_name(name) for name in ("windows 7", "ubuntu", "mac os x", "tizen")] == [
        "windows",
        "linux",
        "macos",
        "tizen",
    ]


@READERS
@given(text=st.binary(max_size=HEADER_BYTES_MAX))
@pytest.mark.parametrize(
    "around", [b"%b", b"Mozilla/5.0 (Linux; %b) Mobile", b"%b-iPhone/1 CFNetwork", b"x %b Bot/1"]
)
def test_whatever_is_said_only_classes_leave(reader: str, around: bytes, text: bytes) -> None:
    """No user agent raises an error. Each value is short, can be printed, and is none that a client has made up."""
    made_up = b"zq" + text.hex().encode()[:40] + b"qz"
    for header in (around % text, around % made_up):
        found = reader_of(reader)(header[:HEADER_BYTES_MAX])
        for value in found:
            assert len(value) <= NAME_CHARS_MAX and (not value or value.isprintable())
            assert made_up.decode() not in value
        assert found.system in ("", "*", *SYSTEMS) or reader == "libraries"


def test_new_user_agents_cost_a_bounded_amount_per_flush() -> None:
    """Of new user agents a flush reads a fixed number; further ones are not read, and known ones cost nothing."""
    read: list[bytes] = []

    def reader(text: bytes) -> Agent:
        read.append(text)
        return Agent("mobile")

    known = Agents(reader)
    texts = [b"browser %d" % number for number in range(1_000)]
    found = Counter(known.of(text) for text in texts)
    assert found == {Agent("mobile"): NEW_MAX, UNREAD: 1_000 - NEW_MAX}
    assert known.unread == 1_000 - NEW_MAX
    known.renew()
    assert [known.of(texts[0]), known.of(texts[-1]), known.of(None), known.of(b" ")] == [
        Agent("mobile"),
        Agent("mobile"),
        NO_AGENT,
        NO_AGENT,
    ]
    assert read == [*texts[:NEW_MAX], texts[-1]]


def test_the_cache_of_user_agents_is_bounded_in_bytes() -> None:
    """The least recently used user agents are evicted once the cache has its bytes."""
    room = 3 * (agents.ENTRY_BYTES + HEADER_BYTES_MAX)
    read: list[bytes] = []
    known = Agents(lambda text: read.append(text) or NO_AGENT, bytes_max=room)  # type: ignore[func-returns-value]
    texts = [letter * HEADER_BYTES_MAX for letter in (b"a", b"b", b"c", b"a", b"d", b"a", b"b")]
    for text in texts:
        known.of(text)
    assert [text[:1] for text in read] == [b"a", b"b", b"c", b"d", b"b"]
    assert known.bytes == room
