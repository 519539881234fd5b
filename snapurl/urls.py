"""Which URLs a link may point to, and the form in which they are stored. Pure.

What is stored is what the redirect's `Location` sends: parsed and written anew by the WHATWG rules that
browsers follow (through pydantic), so it is pure ASCII with an IDNA host and cannot break out of a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from pydantic_core import Url, ValidationError

SCHEMES = frozenset({"http", "https"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST_CHARS_MAX = 253

_FORBIDDEN = re.compile(r"[\s\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?([^/?#]*)")
# Underscores are not host names by the letter, yet real hosts have them and browsers go there.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
HOSTS_REMEMBERED = 1_024  # in the form in which they are compared; the one used least recently goes
# What the parser would leave as it is, if the host is one and no part of the path begins like `.`, `..` or `%2e`.
_PLAIN_CHARACTERS = "A-Za-z0-9_~!$&()*+,;=:@%./-"
_PLAIN = re.compile(
    rf"https?://([a-z0-9._-]+)/[{_PLAIN_CHARACTERS}]*"
    rf"(?:\?[{_PLAIN_CHARACTERS}?]*)?(?:#[{_PLAIN_CHARACTERS}?]*)?"
)


class UrlRefused(ValueError):
    """The URL cannot be a link's target; the text says why, without repeating the URL."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What a deployment takes: at most `chars_max` characters, and no host of its own (a redirect loop)."""

    chars_max: int
    own_hosts: frozenset[str]

    def check(self, text: str) -> str:
        """The URL as it is stored and sent. Raises UrlRefused."""
        return text if self.is_plain(text) else self.parse(text)

    def is_plain(self, text: str) -> bool:
        """Whether one look tells that `parse` would answer `text` itself, as it does for most URLs."""
        match = _PLAIN.fullmatch(text) if len(text) <= self.chars_max else None
        return (
            match is not None
            and "/." not in text
            and "/%" not in text
            and _is_plain_host(host := match[1])
            and host not in self.own_hosts
        )

    def parse(self, text: str) -> str:
        """As `check`, by the rules alone."""
        if len(text) > self.chars_max:
            raise UrlRefused(f"must have at most {self.chars_max} characters")
        _check_characters(text)
        _check_shape(text)
        try:
            url = Url(text)
        except ValidationError as error:
            raise UrlRefused(_reason(error)) from None
        _check_host(url.host or "")
        if canonical_host(url.host or "") in self.own_hosts:
            raise UrlRefused("must not point to this service itself: that would be a redirect loop")
        stored = str(url)
        if len(stored) > self.chars_max:
            raise UrlRefused(f"must have at most {self.chars_max} characters when percent-encoded")
        assert stored.isascii() and stored.isprintable(), "the URL parser let something through"
        return stored


@lru_cache(maxsize=HOSTS_REMEMBERED)
def canonical_host(host: str) -> str:
    """A host as it is compared: lower case, punycode, without the dot of the root at its end."""
    with suppress(ValidationError):  # a configured name that no browser can open cannot be linked to either
        host = Url(f"http://{host}/").host or host
    return host.lower().removesuffix(".")


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _is_plain_host(host: str) -> bool:
    """Whether it is a host name in the form in which hosts are stored and compared."""
    try:
        stored = Url(f"http://{host}/").host
        _check_host(host)
    except (ValidationError, UrlRefused):
        return False
    return stored == host and not host.endswith(".")


def own_hosts(names: Iterable[str]) -> frozenset[str]:
    """The hosts that lead back here; one way of writing the loopback address stands for all."""
    hosts = frozenset(canonical_host(name) for name in names if name)
    return hosts | LOOPBACK_NAMES if hosts & LOOPBACK_NAMES else hosts


def _check_characters(text: str) -> None:
    if _FORBIDDEN.search(text):
        raise UrlRefused("must not contain spaces, backslashes or control characters")


def _check_shape(text: str) -> None:
    match = _SCHEME.match(text)
    if match is None:
        raise UrlRefused("must be a whole URL such as https://example.org/page")
    scheme, slashes, authority = match.groups()
    if scheme.lower() not in SCHEMES:
        raise UrlRefused("must begin with http:// or https://")
    if slashes is None or not authority:
        raise UrlRefused("must name a host, as in https://example.org/page")
    if "@" in authority:
        raise UrlRefused("must not hold a user name or password: that is how phishing hides the real host")


def _check_host(host: str) -> None:
    if host.startswith("["):
        return  # an IPv6 address that the parser has taken
    name = host.removesuffix(".")
    if len(name) > HOST_CHARS_MAX or not _HOST.fullmatch(name):
        raise UrlRefused("does not have a valid host name")


def _reason(error: ValidationError) -> str:
    """What the parser disliked, in its own few words ("invalid port number")."""
    message = error.errors(include_input=False, include_url=False)[0]["msg"]
    _, comma, reason = message.partition(", ")
    return f"is not a valid URL: {reason}" if comma else "is not a valid URL"
