"""From where a click came, read from a head at the flush as a parsed request is read at once."""

from __future__ import annotations

import pytest

from snapurl.addresses import Clients, parse_networks
from snapurl.clicks.origins import LINES_BYTES_MAX, Origins

PROXY = "10.0.0.1"


@pytest.fixture
def origins() -> Origins:
    return Origins(Clients(parse_networks("10.0.0.0/8"), lambda line: None), "cf-ipcountry")


@pytest.mark.parametrize(
    ("peer", "lines", "found"),
    [
        (PROXY, b"X-Forwarded-For: 203.0.113.9\r\nCF-IPCountry: DE\r\n", ("203.0.113.9", "DE")),
        (
            PROXY,
            b"x-forwarded-for:1.2.3.4\r\na: b\r\nX-FORWARDED-FOR: 203.0.113.9 , 10.0.0.2\r\n",
            ("203.0.113.9", ""),
        ),
        (PROXY, b'Forwarded: for="[2001:db8::1]:443"\r\nNot-Forwarded: for=x\r\n', ("2001:db8::/64", "")),
        (PROXY, b"CF-IPCountry: DE\r\ncf-ipcountry:\tAT \r\n", (PROXY, "AT")),
        (PROXY, b"X-Forwarded-For: nobody\r\n", (PROXY, "")),
        (PROXY, b"Cookie: x-forwarded-for: 1.2.3.4\r\n", (PROXY, "")),
        ("203.0.113.9", b"X-Forwarded-For: 1.2.3.4\r\nCF-IPCountry: DE\r\n", ("203.0.113.9", "")),
        ("2001:db8::7", b"", ("2001:db8::/64", "")),
    ],
)
def test_an_origin_is_read_where_a_trusted_proxy_says_it(
    origins: Origins, peer: str, lines: bytes, found: tuple[str, str]
) -> None:
    """The client and its country are those that a trusted proxy names; of any other peer nothing is believed."""
    head = b"GET /a HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"
    assert origins.read(origins.of_head(peer, head)) == found


def test_what_is_kept_until_the_flush_is_bounded(origins: Origins) -> None:
    """However long a list of addresses is, little of it is kept, and the client is the same."""
    head = (
        b"GET /a HTTP/1.1\r\nX-Forwarded-For: "
        + b"1.2.3.4, " * 1_500
        + b"203.0.113.9\r\nCF-IPCountry: DE\r\n\r\n"
    )
    origin = origins.of_head(PROXY, head)
    assert len(origin) <= LINES_BYTES_MAX
    assert origins.read(origin) == ("203.0.113.9", "DE")


def test_a_service_without_proxies_searches_no_head() -> None:
    """Where no proxy is trusted the origin is the peer."""
    assert Origins(Clients((), pytest.fail), "").are_peers
    assert not Origins(Clients(parse_networks("10.0.0.1"), pytest.fail), "").are_peers


def test_a_parsed_request_has_the_same_origin(origins: Origins) -> None:
    """On Sanic's path client and country are known at once."""
    found = [origins.of_request(peer, "203.0.113.9", ["FR", " DE "]) for peer in (PROXY, "203.0.113.9")]
    assert [origins.read(origin) for origin in found] == [("203.0.113.9", "DE"), ("203.0.113.9", "")]
