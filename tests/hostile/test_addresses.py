"""Headers that name a client, in every spelling: nobody chooses the address that counts."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.addresses import HOPS_MAX, Clients, client_at, parse_networks, read_address, site_of

PROXIES = "10.0.0.0/8 192.0.2.7 fd00::/8"
PROXY_PEERS = st.sampled_from(["10.1.2.3", "192.0.2.7", "fd00::1", "::ffff:10.9.9.9"])
V4 = st.ip_addresses(v=4, network="198.51.100.0/24").map(str)
V6 = st.ip_addresses(v=6, network="2001:db8::/32").map(str)
VISITORS = V4 | V6
TRUSTED = st.ip_addresses(v=4, network="10.0.0.0/8").map(str) | st.just("fd00::7")
PORTS = st.sampled_from(["", ":0", ":443", ":65535", ":_port"])
GARBAGE = st.text(alphabet='0123456789abcdef.:%[]"\\,;=_ \tforFOR<>ü²', max_size=60) | st.sampled_from(
    [
        "unknown",
        "_hidden",
        "",
        " ",
        '"',
        "for=",
        "for=6.6.6.6",
        '"6.6.6.6',
        "1.2.3",
        "::g",
        "[::1",
        "x" * 20_000,
        "010.0.0.1",
    ]
)


def spelled(address: str, port: str, *, quoted: bool, bracketed: bool) -> str:
    """Returns an address as some proxy would write it."""
    is_v6 = ":" in address
    text = f"[{address}]{port}" if is_v6 and (bracketed or port) else address + port
    return f'"{text}"' if quoted else text


SPELLED = st.builds(
    lambda address, port, quoted, bracketed: (
        address,
        spelled(address, port, quoted=quoted, bracketed=bracketed),
    ),
    VISITORS, PORTS, st.booleans(), st.booleans(),
)  # fmt: skip


def forwarded(node: str) -> str:
    """Returns an element of Forwarded with `node`, quoted as RFC 7239 wants it."""
    quoted = f'"{node}"' if ":" in node and not node.startswith('"') else node
    return f"by=10.0.0.1;For={quoted};proto=https"


def test_of_the_right_most_address_that_no_proxy_has() -> None:
    """The examples of the documents: each spelling, and what counts."""
    clients = Clients(parse_networks(PROXIES), pytest.fail)
    for text, counted in {
        "198.51.100.7": "198.51.100.7",
        "6.6.6.6, 198.51.100.7": "198.51.100.7",
        "6.6.6.6, 198.51.100.7,10.0.0.1 , 192.0.2.7": "198.51.100.7",
        "203.0.113.9:51234": "203.0.113.9",
        '"203.0.113.9:51234"': "203.0.113.9",
        "[2001:db8:1:2::9]:443": "2001:db8:1:2::/64",
        "2001:db8:1:2::9": "2001:db8:1:2::/64",
        '"[2001:DB8:1:2::9]"': "2001:db8:1:2::/64",
        "fe80::1%eth0": "fe80::/64",
        "::ffff:198.51.100.7": "198.51.100.7",
        "[::ffff:10.0.0.1]:80": "10.1.2.3",
        "10.0.0.9, 10.0.0.8": "10.1.2.3",
    }.items():
        assert clients.of_request("10.1.2.3", text, "") == counted, text
    assert (
        clients.of_request("10.1.2.3", "", 'for=6.6.6.6, for="[2001:db8:1:2::9]:4711";by=x')
        == "2001:db8:1:2::/64"
    )
    assert clients.of_request("", "198.51.100.7", "") == ""
    assert site_of("2001:db8:1:2::/64") == "2001:db8:1::/48"
    assert site_of("198.51.100.7") is site_of("key:abcdef") is None


@given(PROXY_PEERS, GARBAGE, SPELLED, st.lists(TRUSTED, max_size=3), st.booleans())
def test_the_client_is_the_last_address_that_is_not_a_proxys(
    peer: str, before: str, visitor: tuple[str, str], hops: list[str], is_rfc: bool
) -> None:
    """Whatever the visitor writes before it, the address that the first trusted proxy appended counts."""
    clients = Clients(parse_networks(PROXIES), pytest.fail)
    elements = [visitor[1], *hops]
    if is_rfc:
        header = ", ".join([before, *map(forwarded, elements)])
        assert clients.of_request(peer, "", header) == client_at(visitor[0])
    else:
        assert clients.of_request(peer, ",".join([before, *elements]), "") == client_at(visitor[0])


@given(PROXY_PEERS, GARBAGE, GARBAGE, SPELLED, st.booleans())
def test_the_header_that_the_proxy_does_not_write_helps_nobody(
    peer: str, before: str, other: str, visitor: tuple[str, str], is_rfc: bool
) -> None:
    """A proxy writes one of the headers, the visitor the other: what counts is the visitor, or the proxy."""
    clients = Clients(parse_networks(PROXIES), lambda line: None)
    if is_rfc:
        counted = clients.of_request(peer, other, f"{before}, {forwarded(visitor[1])}")
    else:
        counted = clients.of_request(peer, f"{before},{visitor[1]}", other)
    assert counted in {client_at(visitor[0]), client_at(peer)}


@given(VISITORS | st.just("10.1.2.3"), GARBAGE | st.lists(VISITORS).map(", ".join), GARBAGE)
def test_a_peer_that_is_not_trusted_names_nobody(peer: str, forwarded_for: str, other: str) -> None:
    """Without trusted proxies, or from another peer, the headers mean nothing."""
    for networks in ("", "172.16.0.0/12"):
        clients = Clients(parse_networks(networks), pytest.fail)
        assert not clients.is_proxy(peer)
        assert clients.of_request(peer, forwarded_for, other) == client_at(peer)


@given(PROXY_PEERS, GARBAGE | st.lists(GARBAGE, max_size=8).map(",".join), GARBAGE)
def test_nothing_that_arrives_is_an_error(peer: str, forwarded_for: str, other: str) -> None:
    """Any text gives an address that stands in it, or the peer; and at most one line is reported."""
    lines: list[str] = []
    clients = Clients(parse_networks(PROXIES), lines.append)
    for _ in range(2):
        counted = clients.of_request(peer, forwarded_for, other)
        assert ip_address(counted.removesuffix("/64"))
    assert len(lines) <= 1
    assert all(line.isascii() and line.isprintable() and len(line) < 300 for line in lines)


@given(GARBAGE)
def test_an_address_is_read_or_not(text: str) -> None:
    """Reading returns an address or None; the same address in brackets and with a port is the same."""
    address = read_address(text)
    if address is not None:
        assert isinstance(address, IPv4Address | IPv6Address)
        assert read_address(f"[{address}]:80") == address


@pytest.mark.parametrize(
    "last", ["unknown", "_secret", "", "1.2.3", '"1.2.3.4', "1.2.3.4:x", "[::1", "::g", "1.2.3.4 5"]
)
def test_what_cannot_be_read_is_reported_once_and_counts_as_the_proxys(last: str) -> None:
    """A hop that is no address makes the proxy count as the client, not what stands before it."""
    lines: list[str] = []
    clients = Clients(parse_networks(PROXIES), lines.append)
    for _ in range(3):
        assert clients.of_request("10.1.2.3", f"6.6.6.6, {last}", "") == "10.1.2.3"
        assert clients.of_request("10.1.2.3", "", f"for=6.6.6.6, for={last}") == "10.1.2.3"
    assert len(lines) == 1 and "10.1.2.3" in lines[0]


def test_the_hops_that_are_read_are_bounded() -> None:
    """Of a list with more trusted proxies than HOPS_MAX the rest is not read."""
    clients = Clients(parse_networks(PROXIES), pytest.fail)
    hops = ["10.0.0.1"] * (HOPS_MAX - 1)
    assert clients.of_request("10.1.2.3", ",".join(["6.6.6.6", *hops]), "") == "6.6.6.6"
    assert clients.of_request("10.1.2.3", ",".join(["6.6.6.6", "10.0.0.1", *hops]), "") == "10.1.2.3"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1", "is not a network"),
        ("10.0.0.0/33", "is not a network"),
        ("10.0.0.0/8,192.0.2.1", "is not a network"),
        ("proxy", "is not a network"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("0.0.0.0/0", "would trust every peer"),
        ("192.0.2.1 ::/0", "would trust every peer"),
    ],
)
def test_networks_that_cannot_be_meant_are_refused(text: str, why: str) -> None:
    """A network that is malformed, or that would trust everybody, is refused with what to write."""
    with pytest.raises(ValueError, match=why):
        parse_networks(text)
