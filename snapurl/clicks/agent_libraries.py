"""Reads user agents with the libraries of the extra `analytics`: more browsers and systems, and each bot's name.

`ua-parser` has the patterns of browsers and systems, `crawler-user-agents` those of bots. Both are matched in
linear time (`ua-parser-rs`, `google-re2`), so no header takes long. Names of the libraries become those of
`agents.py` where there is one: `chrome` is the same with and without the extra.

Some patterns take the name of a program from the header. Such a name could be anything that a client makes up. So
a name passes only if it is a part of the patterns themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from snapurl.clicks.agents import Agent, any_device_of, read_families
from snapurl.clicks.sources import BOT, OTHER, browser_of

NAME_CHARS_MAX = 40

_FORMS = re.compile(r"\b(?:mobile|ios|webview|ui/wkwebview|tablet|touch|mini)(?!\w)")
_BROWSERS = {"chromium": "chrome", "samsung internet": "samsung", "android": "android browser"}
_SYSTEMS = {"mac os x": "macos", "mac os": "macos", "chrome os": "chromeos", "atv os x": "tvos"}
_LINUX = frozenset(
    [
        "arch linux",
        "centos",
        "debian",
        "fedora",
        "gentoo",
        "kubuntu",
        "linux mint",
        "mandriva",
        "red hat",
        "slackware",
        "suse",
        "ubuntu",
    ]
)
_TOKEN = re.compile(
    r"""
    \\ ([^A-Za-z0-9])                         # an escaped character
    | \( ( [^()|]* ) (?: \| [^()]* )? \)        # alternatives: the first one
    | \[ [^]]* \] \* .*                          # anything, and what follows it
    | \[ (?: \^ | \\ )? ( (?<=\[) . )? [^]]* \]  # a class: its first character
    | \\ . | [$^*+?] | \| .*
    """,
    re.VERBOSE,
)


@cache
def load() -> Callable[[bytes], Agent] | None:
    """Returns what reads a user agent; None if the extra is not installed. Takes about 0.1 s of CPU time."""
    try:
        from crawleruseragents import CRAWLER_USER_AGENTS_DATA  # noqa: PLC0415
        from re2 import Set  # noqa: PLC0415
        from ua_parser import load_lazy_builtins  # noqa: PLC0415
        from ua_parser_rs import OSExtractor, UserAgentExtractor  # noqa: PLC0415
    except ImportError:
        return None
    browsers, systems, _ = load_lazy_builtins()
    bots = Set.SearchSet()
    patterns = [str(entry["pattern"]) for entry in CRAWLER_USER_AGENTS_DATA]
    for pattern in patterns:
        bots.Add(pattern)
    bots.Compile()
    return _Reader(
        _family(UserAgentExtractor(map(_extracted, browsers)).extract, browsers),
        _family(OSExtractor(map(_extracted, systems)).extract, systems),
        bots.Match,
        patterns,
    )


class _Reader:
    """Reads one user agent. `browser` and `system` return a family in lower case, or OTHER."""

    def __init__(
        self,
        browser: Callable[[str], str],
        system: Callable[[str], str],
        bots: Callable[[str], list[int]],
        patterns: list[str],
    ) -> None:
        self._browser = browser
        self._system = system
        self._bots = bots
        self._patterns = patterns
        self._names = [bot_name(pattern) for pattern in patterns]

    def __call__(self, user_agent: bytes) -> Agent:
        text = user_agent.decode("latin-1")
        found = self._bots(text)
        if found:
            best = max(
                found, key=lambda number: len(self._patterns[number])
            )  # Googlebot-Image, not Googlebot
            return Agent(bot=self._names[best])
        if browser_of(user_agent) == BOT:
            return Agent(bot=BOT)
        browser, system = browser_name(self._browser(text)), system_name(self._system(text))
        if OTHER in (browser, system):
            known = read_families(user_agent)
            browser = known.browser or OTHER if browser == OTHER else browser
            system = known.system or OTHER if system == OTHER else system
        return Agent(any_device_of(user_agent), system, browser)


def _extracted(matcher: Any) -> tuple[str, str, None, None, None, None]:
    """Returns what an extractor needs to find the family alone."""
    return matcher.regex, matcher.family, None, None, None, None


def _family(extract: Callable[[str], Any], matchers: Iterable[Any]) -> Callable[[str], str]:
    known = "\n".join(f"{matcher.regex}\n{matcher.family}" for matcher in matchers).replace("\\", "").lower()

    def family(text: str) -> str:
        found = extract(text)
        name = "" if found is None else str(found.family).strip().lower()[:NAME_CHARS_MAX]
        return name if name and name in known else OTHER

    return family


def browser_name(family: str) -> str:
    """Returns the name of a browser, given in lower case: the same on a phone and on a desk."""
    name = " ".join(_FORMS.sub("", family).split())
    return _BROWSERS.get(name, name) or OTHER


def system_name(family: str) -> str:
    """Returns the name of an operating system, given in lower case: one for all of Windows and one for all of
    Linux."""
    if family.startswith("windows"):
        return "windows"
    if family in _LINUX:
        return "linux"
    return _SYSTEMS.get(family, family)


def bot_name(pattern: str) -> str:
    """Returns the name of a bot, from the pattern of its user agents: `wget` for `[wW]get`."""
    name = _text(pattern).strip(" /;:,+-.")[:NAME_CHARS_MAX]
    return (name if "(" in name else name.rstrip(")")) or BOT


def _text(pattern: str) -> str:
    """Returns the characters that a pattern matches literally: of alternatives the first one."""

    def literal(token: re.Match[str]) -> str:
        escaped, first, in_class = token.groups()
        return _text(first) if first else escaped or in_class or ""

    return _TOKEN.sub(literal, pattern)
