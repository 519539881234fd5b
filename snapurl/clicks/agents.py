"""What a `User-Agent` header says: a bot, or device, operating system and browser. Pure.

`read_families` needs nothing but this package; `agent_libraries.py` reads more of them. Clients choose the header,
and reading a new one takes microseconds. So `Agents` caches the results up to a number of bytes, and reads only so
many new ones per flush.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from snapurl.clicks.sources import BOT, CACHED_HEADERS_MAX, NONE, OTHER, PROGRAM, browser_of

DEVICES = ("mobile", "tablet", "desktop")
"""The devices of rules. Statistics tell OTHER_DEVICES, too."""

OTHER_DEVICES = ("tv", "console")
SYSTEMS = ("android", "ios", "windows", "macos", "linux", "chromeos")

NEW_MAX = 200  # user agents that are read per flush; further new ones count as OTHER
BYTES_MAX = 4_194_304  # of the cached user agents, ENTRY_BYTES for each included
ENTRY_BYTES = 300  # of a cached user agent beside its text

# The first match counts: Android also names Linux, and Windows Phone names Android.
_SYSTEMS = (
    ("windows", re.compile(rb"Windows")),
    ("ios", re.compile(rb"iPhone|iPad|iPod")),
    ("android", re.compile(rb"Android")),
    ("chromeos", re.compile(rb"CrOS")),
    ("macos", re.compile(rb"Macintosh|Mac OS X")),
    ("linux", re.compile(rb"Linux|X11")),
)
_TABLET = re.compile(rb"iPad|Tablet|PlayBook|Android(?!.*Mobile)", re.DOTALL)
_MOBILE = re.compile(rb"Mobi|iPhone|iPod|Windows Phone|Opera Mini")
_OTHER_DEVICES = (
    (
        "tv",
        re.compile(
            rb"TV\b|TV/|TV;|Roku|BRAVIA|CrKey|\bAFT[A-Z]|Web0S|NetCast|VIERA|DTV|InettvBrowser|NX/[0-9]|Tizen.*SmartHub"
        ),
    ),
    ("console", re.compile(rb"PlayStation|PSP|\bXbox|Nintendo")),
)


class Agent(NamedTuple):
    """What a user agent says, NONE for what it does not say. A bot says its name and nothing else."""

    device: str = NONE
    system: str = NONE
    browser: str = NONE
    bot: str = NONE


NO_AGENT = Agent()
UNREAD = Agent(OTHER, OTHER, OTHER)


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def system_of(user_agent: bytes | None) -> str:
    """Returns the operating system, one of SYSTEMS, "" if it is none of them or a bot's."""
    if not user_agent or browser_of(user_agent) == BOT:
        return ""
    return next((name for name, pattern in _SYSTEMS if pattern.search(user_agent)), "")


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def device_of(user_agent: bytes | None) -> str:
    """Returns the kind of device, one of DEVICES, "" if the header does not say it or names a bot."""
    if not user_agent or not system_of(user_agent):
        return ""
    if _TABLET.search(user_agent):
        return "tablet"
    return "mobile" if _MOBILE.search(user_agent) else "desktop"


def any_device_of(user_agent: bytes) -> str:
    """Returns the kind of device, one of DEVICES and OTHER_DEVICES; OTHER if the header does not say it."""
    for name, pattern in _OTHER_DEVICES:
        if pattern.search(user_agent):
            return name
    return device_of(user_agent) or OTHER


def read_families(user_agent: bytes) -> Agent:
    """Reads a user agent with the patterns of this package."""
    browser = browser_of(user_agent)
    if browser in (BOT, PROGRAM):
        return Agent(bot=browser)
    return Agent(any_device_of(user_agent), system_of(user_agent) or OTHER, browser)


class Agents:
    """User agent -> Agent, read by `read`. The least recently used ones are evicted.

    `unread` counts those that were new when NEW_MAX had been read since `renew`.
    """

    def __init__(self, read: Callable[[bytes], Agent], bytes_max: int = BYTES_MAX) -> None:
        self._read = read
        self._bytes_max = bytes_max
        self._known: dict[bytes, Agent] = {}
        self._left = NEW_MAX
        self.bytes = 0
        self.unread = 0

    def renew(self) -> None:
        """Allows NEW_MAX more to be read."""
        self._left = NEW_MAX

    def of(self, user_agent: bytes | None) -> Agent:
        """Returns what the header says; NO_AGENT without one, UNREAD if it is new and too many are."""
        if not user_agent or not (user_agent := user_agent.strip()):
            return NO_AGENT
        known = self._known
        found = known.pop(user_agent, None)
        if found is None:
            if not self._left:
                self.unread += 1
                return UNREAD
            self._left -= 1
            found = self._read(user_agent)
            self.bytes += ENTRY_BYTES + len(user_agent)
            while self.bytes > self._bytes_max and known:
                oldest = next(iter(known))
                del known[oldest]
                self.bytes -= ENTRY_BYTES + len(oldest)
        known[user_agent] = found
        return found
