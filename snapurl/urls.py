"""Which URLs a link may point to, and the form in which they are stored. Pure.

The stored form is what `Location` sends. It is parsed and serialized by the WHATWG rules that browsers follow
(through pydantic), so it is ASCII with an IDNA host and cannot inject a header.
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
# Host names must not have underscores, but some real ones do, and browsers accept them.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
HOSTS_CACHED = 1_024  # canonical hosts; the least recently used is evicted
# URLs that the parser leaves unchanged if the host is valid and no path segment starts with `.` or `%`.
_PLAIN_CHARACTERS = "A-Za-z0-9_~!$&()*+,;=:@%./-"
_PLAIN = re.compile(
    rf"https?://([a-z0-9._-]+)/[{_PLAIN_CHARACTERS}]*"
    rf"(?:\?[{_PLAIN_CHARACTERS}?]*)?(?:#[{_PLAIN_CHARACTERS}?]*)?"
)


class UrlRefused(ValueError):
    """The URL cannot be the target of a link; the text says why, without repeating the URL."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What a deployment accepts: at most `chars_max` characters, and none of its own hosts (a redirect loop)."""

    chars_max: int
    own_hosts: frozenset[str]

    def check(self, text: str) -> str:
        """Returns the URL in its stored form. Raises UrlRefused."""
        return text if self.is_plain(text) else self.parse(text)

    def is_plain(self, text: str) -> bool:
        """Whether `parse` would certainly return `text` unchanged, as for most URLs; much faster than `parse`."""
        match = _PLAIN.fullmatch(text) if len(text) <= self.chars_max else None
        return (
            match is not None
            and "/." not in text
            and "/%" not in text
            and _is_plain_host(host := match[1])
            and host not in self.own_hosts
        )

    def parse(self, text: str) -> str:
        """As `check`, without the shortcut for plain URLs."""
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


@lru_cache(maxsize=HOSTS_CACHED)
def canonical_host(host: str) -> str:
    """Returns a host in the form in which hosts are compared: lower case, punycode, no trailing dot."""
    with suppress(ValidationError):  # an invalid own name in the settings cannot be the host of a link either
        host = Url(f"http://{host}/").host or host
    return host.lower().removesuffix(".")


@lru_cache(maxsize=HOSTS_CACHED)
def _is_plain_host(host: str) -> bool:
    """Whether `host` is a valid host name in its canonical form."""
    try:
        stored = Url(f"http://{host}/").host
        _check_host(host)
    except (ValidationError, UrlRefused):
        return False
    return stored == host and not host.endswith(".")


def own_hosts(names: Iterable[str]) -> frozenset[str]:
    """Returns the hosts of this service; if one is a loopback name, all loopback names are."""
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
        return  # an IPv6 address, already checked by the parser
    name = host.removesuffix(".")
    if len(name) > HOST_CHARS_MAX or not _HOST.fullmatch(name):
        raise UrlRefused("does not have a valid host name")


def _reason(error: ValidationError) -> str:
    """Returns the parser's reason, such as "invalid port number"."""
    message = error.errors(include_input=False, include_url=False)[0]["msg"]
    _, comma, reason = message.partition(", ")
    return f"is not a valid URL: {reason}" if comma else "is not a valid URL"
