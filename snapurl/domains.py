"""Domains: the host names that have links of their own, and the short URLs below them. Pure.

The default domain is the host of the base URL, all others are settings. A host that is neither leads to the links
of the default domain. So does every host if there is only one domain: nothing looks at it then.

Names are kept as DNS has them: in lower case, without a trailing dot, international ones in Punycode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from snapurl.codes import DOMAIN_CHARS_MAX, split_key
from snapurl.urls import UrlRefused, comparable_host, host_of

DOMAINS_MAX = 100

_NAME = re.compile(r"[^\s/?#@:\[\]\\]+")
_PORT = re.compile(r":[0-9]*\Z")


@dataclass(frozen=True, slots=True)
class Domains:
    """The domains of a service. `others` are all but the default; `prefixes` maps each to how its keys begin."""

    public_url: str
    others: tuple[str, ...]
    prefixes: Mapping[str, str]

    @classmethod
    def of(cls, public_url: str, names: Iterable[str] = ()) -> Domains:
        """Returns the domains of a service with this base URL. Raises UrlRefused for what cannot be another one."""
        others = tuple(dict.fromkeys(map(read_name, names)))
        if len(others) > DOMAINS_MAX:
            raise UrlRefused(f"must have at most {DOMAINS_MAX} domains")
        if (default := _host(public_url)) in others:
            raise UrlRefused(f"{default} is the host of SNAPURL_BASE_URL, which needs no mention here")
        return cls(public_url, others, {name: f"{name}/" for name in others})

    @property
    def default(self) -> str:
        """The host of the base URL."""
        return _host(self.public_url)

    @property
    def names(self) -> tuple[str, ...]:
        """All domains, the default one first."""
        return (self.default, *self.others)

    @property
    def port(self) -> str:
        """The port of short URLs with its colon, "" if it is that of the scheme."""
        port = urlsplit(self.public_url).port
        return "" if port is None else f":{port}"

    def prefix_at(self, host: str) -> str:
        """Returns how the keys of the links at a host begin. `host` is a value of the header Host: a port does not
        count."""
        name = _PORT.sub("", host.strip(" \t")).lower().removesuffix(".")
        return self.prefixes.get(name, "")

    def find(self, text: str) -> str:
        """Returns the domain that a client names, "" for the default one. It need not be configured.

        Raises UrlRefused for what is no host name.
        """
        try:
            name = read_name(text)
        except UrlRefused:
            if comparable_host(text) == comparable_host(self.default):  # an address, in local clusters
                return ""
            raise
        return "" if comparable_host(name) == comparable_host(self.default) else name

    def read(self, text: str) -> str:
        """As `find`. Raises UrlRefused unless the domain is configured."""
        name = self.find(text)
        if not self.has(name):
            raise UrlRefused(self.refusal())
        return name

    def has(self, domain: str) -> bool:
        """Whether a domain, "" for the default one, is configured."""
        return not domain or domain in self.prefixes

    def refusal(self) -> str:
        """Returns what is said of a domain that is not configured."""
        return f"is not a domain of this service: its domains are {', '.join(self.names)}"

    def short_url(self, key: str) -> str:
        """Returns the short URL of a link, with the scheme and the port of the base URL."""
        domain, code = split_key(key)
        if not domain:
            return f"{self.public_url}/{code}"
        scheme, _, _ = self.public_url.partition("://")
        return f"{scheme}://{domain}{self.port}/{code}"


def read_name(text: str) -> str:
    """Returns a host name as it is kept. Raises UrlRefused."""
    refusal = UrlRefused(
        f"{text[:DOMAIN_CHARS_MAX]!r} is not a host name such as s.example.org, without a port"
    )
    if not _NAME.fullmatch(text):
        raise refusal
    try:
        name = host_of(f"http://{text}/").removesuffix(".")
    except UrlRefused:
        raise refusal from None
    if len(name) > DOMAIN_CHARS_MAX:
        raise UrlRefused(f"{name[:DOMAIN_CHARS_MAX]}… has more than {DOMAIN_CHARS_MAX} characters")
    if _is_address(name):
        raise refusal
    return name


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _host(public_url: str) -> str:
    return (urlsplit(public_url).hostname or "").removesuffix(".")
