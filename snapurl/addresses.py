"""Addresses of clients: against which address a request counts, behind proxies and with IPv6. Pure.

Theory. Connections, limits and blocks count per client. A client is an IPv4 address, or the /64 of an IPv6 address,
since one machine has all addresses of its /64. One customer may have a whole /48: `site_of` returns it, for a wider
bound.

The client is the peer of the connection, unless the peer is a trusted proxy (SNAPURL_PROXIES). A proxy appends the
address of its own peer to `X-Forwarded-For`, or to `Forwarded` (RFC 7239). So the list is read from its end: the
first address that is not a trusted proxy's is the client. Everything before it may be forged, and is not read.

The peer counts as the client also in these cases:

- The list is empty, or has trusted proxies only.
- An address cannot be read, such as `unknown`, before the client is found. This is reported once.
- Both headers are present and name different clients. The proxy has written one of them, the client the other, and
  nothing says which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOPS_MAX = 16  # addresses read of one list; beyond it the peer counts as the client
ADDRESS_CHARS_MAX = 64  # longer text is not read as an address; this bounds the cache in bytes, too
ADDRESSES_CACHED = 4_096  # addresses as text; the least recently used is evicted
CLIENT_PREFIX_BITS = 64  # of IPv6
SITE_PREFIX_BITS = 48

_TRUSTED = ""
_NODE = re.compile(
    r"""
    (?: \[ ( [0-9A-Fa-f:.]+ (?: % [\w.~-]+ )? ) \] | ( [0-9.]+ ) ) (?: : (?: [0-9]{1,5} | _ [\w.-]+ ) )?
    | ( [0-9A-Fa-f:.]+ (?: % [\w.~-]+ )? )
    """,
    re.VERBOSE | re.ASCII,
)
EMBEDDED = "embedded:"  # before a client: what pages make its browser fetch
_CLIENT_V6 = re.compile(rf"(address:|{EMBEDDED})?([0-9a-f:]+)/{CLIENT_PREFIX_BITS}")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parses networks and addresses that are separated by spaces. Raises ValueError with one line."""
    return tuple(_parse_network(item) for item in text.split())


def _parse_network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text[:ADDRESS_CHARS_MAX]!r} is not a network: write networks such as 10.0.0.0/8, separated by spaces"
        ) from None
    if network.prefixlen == 0:
        raise ValueError(f"{text} would trust every peer: name the networks of the proxies only")
    if "/" in text and str(network.network_address) != str(ip_address(text.partition("/")[0])):
        raise ValueError(f"{text} is not a network: write {network}, or the address alone")
    return network


def read_address(text: str) -> Address | None:
    """Reads an address as proxies write it: also quoted, in brackets, with a port or a zone. None if it is none.

    An IPv4-mapped IPv6 address is read as the IPv4 address.
    """
    if len(text) > ADDRESS_CHARS_MAX:
        return None
    text = text.strip(" \t")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    try:
        address = ip_address((match[1] or match[2] or match[3]).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_at(peer: str) -> str:
    """Returns the client at the other end of a connection, also if it is a proxy; `peer` if that is no address."""
    address = read_address(peer)
    return peer if address is None else _client_at(address)


def _client_at(address: Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, CLIENT_PREFIX_BITS), strict=False))
    return str(address)


@lru_cache(maxsize=ADDRESSES_CACHED)
def site_of(client: str) -> str | None:
    """Returns the /48 of an IPv6 client with the same prefix (`address:`), None for any other client."""
    match = _CLIENT_V6.fullmatch(client)
    if match is None:
        return None
    return f"{match[1] or ''}{IPv6Network((match[2], SITE_PREFIX_BITS), strict=False)}"


class Clients:
    """Finds the client of a request. `networks` are those of the trusted proxies.

    `report` is called once, with a line about a header of a trusted proxy that cannot be read.
    """

    def __init__(self, networks: Sequence[Network], report: Callable[[str], None]) -> None:
        self._networks = tuple(networks)
        self._report = report
        self._is_reported = False
        self._read_short_hop = lru_cache(maxsize=ADDRESSES_CACHED)(self._read_hop)

    @property
    def has_proxies(self) -> bool:
        """Whether any peer could be a trusted proxy."""
        return bool(self._networks)

    def is_proxy(self, peer: str) -> bool:
        """Whether the peer of a connection is a trusted proxy."""
        return bool(self._networks) and self._hop(peer) == _TRUSTED

    def of_request(self, peer: str, forwarded_for: str, forwarded: str) -> str:
        """Returns the client of a request. The headers are complete: lines joined by commas, or empty."""
        client = self._hop(peer)
        if client != _TRUSTED:
            return peer if client is None else client
        named = set()
        if forwarded_for:
            named.add(self._last_client(peer, "X-Forwarded-For", _from_end(forwarded_for)))
        if forwarded:
            named.add(self._last_client(peer, "Forwarded", map(_for_parameter, _from_end(forwarded))))
        found = named.pop() if len(named) == 1 else None
        return client_at(peer) if found is None else found

    def _last_client(self, peer: str, header: str, hops: Iterable[str]) -> str | None:
        """Returns the last hop that is not a trusted proxy; None if there is none or a hop cannot be read."""
        for hop in islice(hops, HOPS_MAX):
            client = self._hop(hop)
            if client is None:
                self._report_once(
                    f"{header} from the proxy {peer} has something other than addresses where the client should "
                    "be: such requests count as the proxy's own"
                )
                return None
            if client != _TRUSTED:
                return client
        return None

    def _hop(self, text: str) -> str | None:
        """Returns the client with this address, _TRUSTED for a proxy, None if it cannot be read."""
        return self._read_short_hop(text) if len(text) <= ADDRESS_CHARS_MAX else None

    def _read_hop(self, text: str) -> str | None:
        address = read_address(text)
        if address is None:
            return None
        return _TRUSTED if any(address in network for network in self._networks) else _client_at(address)

    def _report_once(self, line: str) -> None:
        if not self._is_reported:
            self._is_reported = True
            self._report(line)


def _from_end(header: str) -> Iterator[str]:
    """Yields the elements of a list header, the last first. No address has a comma, not even between quotes."""
    more = True
    while more:
        header, comma, element = header.rpartition(",")
        more = bool(comma)
        yield element


def _for_parameter(element: str) -> str:
    """Returns the value of the only `for` in an element of Forwarded, else an empty string."""
    pairs = [pair.partition("=") for pair in element.split(";")]
    values = [value for name, _, value in pairs if name.strip(" \t").lower() == "for"]
    return values[0] if len(values) == 1 else ""
