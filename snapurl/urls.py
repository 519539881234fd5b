"""Which URLs a link may point to, and the form in which they are stored. Pure.

The stored form is what `Location` sends. It is parsed and serialized by the WHATWG rules that browsers follow
(through pydantic), so it is ASCII with an IDNA host and cannot inject a header.

A link to this service itself would be a redirect loop. `own_origins` returns where the service is, `origin_of`
where a URL leads: a host and a port. Hosts are compared as addresses, not as text: all spellings of one host are
equal, and so are all names and addresses of loopback. Other names of the service that only DNS knows cannot be
recognised here, unless SNAPURL_DOMAINS or SNAPURL_OWN_DOMAINS lists them: `http/redirect.py` refuses them when they
are followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from pydantic_core import Url, ValidationError

Origin = tuple[str, int | None]
"""A host in its comparable form, and a port; None is the default port of the scheme, whichever it is."""

DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK = "localhost"
HOST_CHARS_MAX = 253

_FORBIDDEN = re.compile(r"[\s\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?([^/?#]*)")
# Host names must not have underscores, but some real ones do, and browsers accept them.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DOMAIN = re.compile(r"(?:[^\s/?#@:\[\]\\]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]+\Z")
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
    """What a deployment accepts: at most `chars_max` characters, and none of its own origins (a redirect loop)."""

    chars_max: int
    own: frozenset[Origin]

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
            and (comparable_host(host), None) not in self.own
        )

    def parse(self, text: str) -> str:
        """As `check`, without the shortcut for plain URLs."""
        if len(text) > self.chars_max:
            raise UrlRefused(f"must have at most {self.chars_max} characters")
        _check_characters(text)
        _check_shape(text)
        url = _parse(text)
        if _origin(url) in self.own:
            raise UrlRefused("must not point to this service itself: that would be a redirect loop")
        stored = str(url)
        if len(stored) > self.chars_max:
            raise UrlRefused(f"must have at most {self.chars_max} characters when percent-encoded")
        assert stored.isascii() and stored.isprintable(), "the URL parser let something through"
        return stored


def parse_base_url(text: str) -> str:
    """Returns the public URL of a service in canonical form, without a trailing slash. Raises UrlRefused."""
    text = text.strip(" ")
    _check_characters(text)
    match = _SCHEME.match(text)
    if match is None or not match[3]:
        raise UrlRefused("must look like https://s.example.org")
    _check_shape(text)
    url = _parse(text)
    if "?" in text or "#" in text:
        raise UrlRefused("must end with the host or port, without ? and #")
    if url.path != "/":
        raise UrlRefused("must have no path: SnapURL answers at the root of a host name of its own")
    if url.port == 0:
        raise UrlRefused("is not a valid URL: invalid port number")
    return str(url).removesuffix("/")


def own_origins(public_url: str, domains: Iterable[str]) -> frozenset[Origin]:
    """Returns where the service is: at its public URL, and at its other domains, `host` or `host:port`.

    A domain without a port is own at the default ports and at the port of the public URL. Raises UrlRefused for a
    domain that is neither.
    """
    public = origin_of(public_url)
    own = {public}
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            raise UrlRefused(f"{domain[:HOST_CHARS_MAX]!r} is not a host name such as s.example.org")
        host, port = origin_of(f"http://{domain}")
        own |= {(host, port)} if _PORT.search(domain) else {(host, port), (host, public[1])}
    return frozenset(own)


def host_in_url(host: str) -> str:
    """Returns a host as URLs and Host headers have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_from_here(host: str) -> str:
    """Returns the host that reaches, from the same machine, what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def host_of(url: str) -> str:
    """Returns the host of an http or https URL as it is stored. Raises UrlRefused if it is not one."""
    return _parse(url).host or ""


def origin_of(url: str) -> Origin:
    """Returns where an http or https URL leads. Raises UrlRefused if it is not one."""
    return _origin(_parse(url))


def is_confidential(url: str) -> bool:
    """Whether a URL is https or leads to this machine, so that nobody on the way reads what is sent there."""
    try:
        parsed = _parse(url)
    except UrlRefused:
        return False
    return parsed.scheme == "https" or comparable_host(parsed.host or "") == LOOPBACK


def _origin(url: Url) -> Origin:
    port = None if url.port == DEFAULT_PORTS.get(url.scheme) else url.port
    return comparable_host(url.host or ""), port


@lru_cache(maxsize=HOSTS_CACHED)
def comparable_host(host: str) -> str:
    """Returns the form in which a host that the parser has accepted is compared with others.

    It has no trailing dot and no brackets. An IPv4-mapped address is the IPv4 address; every name and address that
    leads to the visitor's own machine is LOOPBACK.
    """
    name = host.lower().removesuffix(".")
    if name == LOOPBACK or name.endswith(f".{LOOPBACK}"):
        return LOOPBACK
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return name
    address = getattr(address, "ipv4_mapped", None) or address
    return LOOPBACK if address.is_loopback or address.is_unspecified else str(address)


@lru_cache(maxsize=HOSTS_CACHED)
def _is_plain_host(host: str) -> bool:
    """Whether `host` is a valid host name in its canonical form."""
    try:
        stored = Url(f"http://{host}/").host
        _check_host(host)
    except (ValidationError, UrlRefused):
        return False
    return stored == host and not host.endswith(".")


def _parse(text: str) -> Url:
    """Parses a URL and checks its host. Raises UrlRefused."""
    try:
        url = Url(text)
    except ValidationError as error:
        raise UrlRefused(_reason(error)) from None
    _check_host(url.host or "")
    return url


def _check_characters(text: str) -> None:
    if _FORBIDDEN.search(text):
        raise UrlRefused("must not contain spaces, backslashes or control characters")


def _check_shape(text: str) -> None:
    match = _SCHEME.match(text)
    if match is None:
        raise UrlRefused("must be a whole URL such as https://example.org/page")
    scheme, slashes, authority = match.groups()
    if scheme.lower() not in DEFAULT_PORTS:
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
