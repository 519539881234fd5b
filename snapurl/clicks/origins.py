"""From where a click came: the address of its client, and the country that a trusted proxy names. Pure.

The address is that of the client (`addresses.py`). Behind a trusted proxy headers say it, and reading them would
take the fast path about as long as a redirect. So it keeps their lines, which are read at the next flush.

The country is in the header SNAPURL_GEO_HEADER. Unless the peer is a trusted proxy, it is not read.
"""

from __future__ import annotations

import re

from snapurl.addresses import Clients, client_at

Origin = str | bytes
"""An address, and a space and a country if one is named; or bytes: the peer, and the lines of its headers."""

LINES_BYTES_MAX = 512  # longer ones are read at once: what is kept until the flush is bounded
COUNTRY_CHARS_MAX = 8

_FORWARDED_FOR = b"x-forwarded-for"
_FORWARDED = b"forwarded"


class Origins:
    """Finds and reads origins. `country_header` is a name in lower case, "" for none."""

    def __init__(self, clients: Clients, country_header: str) -> None:
        self._clients = clients
        self._country_header = country_header.encode()
        names = [_FORWARDED_FOR, _FORWARDED, *([self._country_header] if country_header else [])]
        self._lines = re.compile(
            rb"\n[%b](?i:%b):[^\r]*"
            % (
                b"".join({name[:1] + name[:1].upper() for name in names}),
                b"|".join(re.escape(name[1:]) for name in names),
            )
        )
        self.are_peers = not clients.has_proxies
        """Whether each click's address is its peer, so that no head need be searched."""

    def of_head(self, peer: str, head: bytes) -> Origin:
        """Returns the origin of a request whose head is not parsed."""
        if not self._clients.is_proxy(peer):
            return peer
        origin = peer.encode() + b"".join(self._lines.findall(head))
        return origin if len(origin) <= LINES_BYTES_MAX else with_country(*self.read(origin))

    def read(self, origin: Origin) -> tuple[str, str]:
        """Returns address and country; either is empty if it is not known."""
        if isinstance(origin, str):
            address, _, country = origin.partition(" ")
            # An IPv4 address is written in one way only.
            return client_at(address) if ":" in address else address, country
        peer, *lines = origin.split(b"\n")
        found: dict[bytes, list[bytes]] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            found.setdefault(name.lower(), []).append(value.strip())
        lists = (b",".join(found.get(name, ())).decode("latin-1") for name in (_FORWARDED_FOR, _FORWARDED))
        country = found.get(self._country_header, [b""])[-1].decode("latin-1")[:COUNTRY_CHARS_MAX]
        return self._clients.of_request(peer.decode(), *lists), country

    def of_request(self, peer: str, client: str, countries: list[str]) -> Origin:
        """Returns the origin of a request whose client is known, with the values of the country's header."""
        if not countries or not self._clients.is_proxy(peer):
            return client
        return with_country(client, countries[-1].strip()[:COUNTRY_CHARS_MAX])


def with_country(address: str, country: str) -> str:
    """Returns an origin."""
    return f"{address} {country}" if country else address
