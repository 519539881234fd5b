"""Domains: names as they are given and kept, hosts as clients send them, keys and short URLs."""

from __future__ import annotations

import pytest

from snapurl.codes import DOMAIN_CHARS_MAX, is_key, key_of, split_key
from snapurl.domains import DOMAINS_MAX, Domains
from snapurl.urls import UrlRefused, origin_of, own_origins

BASE = "https://s.example.org"
DOMAINS = Domains.of(BASE, ["go.example.org", "kurz.münchen.example"])


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("go.example.org", "go.example.org/"),
        ("GO.Example.org", "go.example.org/"),
        ("go.example.org.", "go.example.org/"),
        ("go.example.org:8443", "go.example.org/"),
        ("go.example.org.:443", "go.example.org/"),
        ("go.example.org:", "go.example.org/"),
        (" go.example.org\t", "go.example.org/"),
        ("xn--mnchen-3ya.example", ""),
        ("kurz.xn--mnchen-3ya.example", "kurz.xn--mnchen-3ya.example/"),
        ("s.example.org", ""),
        ("S.example.org:80", ""),
        ("x.go.example.org", ""),
        ("go.example.org..", ""),
        ("go.example.org/x", ""),
        ("[2001:db8::1]:80", ""),
        ("", ""),
    ],
)
def test_a_host_leads_to_the_links_of_its_domain(host: str, prefix: str) -> None:
    """Case, port and a trailing dot do not count; a host that is no domain leads to the default domain's links."""
    assert DOMAINS.prefix_at(host) == prefix


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("go.example.org", "go.example.org"),
        ("GO.example.ORG.", "go.example.org"),
        ("Kurz.München.example", "kurz.xn--mnchen-3ya.example"),
        ("kurz.xn--mnchen-3ya.example", "kurz.xn--mnchen-3ya.example"),
        ("s.example.org", ""),
        ("S.Example.org", ""),
    ],
)
def test_a_client_names_a_domain_in_any_spelling(given: str, kept: str) -> None:
    """A domain is named in Unicode or Punycode, in any case; the default domain is as if none was named."""
    assert DOMAINS.read(given) == kept


@pytest.mark.parametrize("given", ["example.org", "go.example.com", "xn--mnchen-3ya.example"])
def test_a_domain_that_is_not_configured_is_refused_with_those_that_are(given: str) -> None:
    """The refusal names all domains, so that the caller can choose one; links of such a domain are still found."""
    with pytest.raises(UrlRefused, match=r"domains are s\.example\.org, go\.example\.org, kurz\.xn--mnchen"):
        DOMAINS.read(given)
    assert DOMAINS.find(given) == given


@pytest.mark.parametrize(
    "given", ["", "go.example.org:80", "https://go.example.org", "go.example.org/x", "a b", "me@go.example.org",
              "10.0.0.1", "0x7f.1", "[::1]", "a..b", "-a.example", "a\x00.example", "x" * 64 + ".example",
              f"{'x.' * 60}example"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(given: str) -> None:
    """A domain is a host name: no port, no URL, no address."""
    with pytest.raises(UrlRefused):
        DOMAINS.find(given)
    with pytest.raises(UrlRefused):
        Domains.of(BASE, [given])


def test_what_cannot_be_another_domain_is_refused() -> None:
    """The host of the base URL needs no mention, and there is a bound."""
    with pytest.raises(UrlRefused, match="host of SNAPURL_BASE_URL"):
        Domains.of(BASE, ["S.example.org."])
    with pytest.raises(UrlRefused, match=f"at most {DOMAINS_MAX}"):
        Domains.of(BASE, [f"d{number}.example.org" for number in range(DOMAINS_MAX + 1)])


def test_the_default_domain_of_a_local_cluster_has_several_names() -> None:
    """All names and addresses of loopback are the default domain of a service that is there."""
    local = Domains.of("http://127.0.0.1:8000", ["go.example.org"])
    assert [local.read(name) for name in ("127.0.0.1", "localhost", "[::1]")] == ["", "", ""]
    assert local.names == ("127.0.0.1", "go.example.org")


@pytest.mark.parametrize(
    ("base", "key", "url"),
    [
        (BASE, "sale", "https://s.example.org/sale"),
        (BASE, "go.example.org/sale", "https://go.example.org/sale"),
        ("http://localhost:8000", "go.example.org/sale", "http://go.example.org:8000/sale"),
        (BASE, "gone.example.org/sale", "https://gone.example.org/sale"),
    ],
)
def test_a_short_url_has_the_scheme_and_the_port_of_the_base_url(base: str, key: str, url: str) -> None:
    """Also of a domain that is no longer configured."""
    assert Domains.of(base, ["go.example.org"]).short_url(key) == url


def test_a_key_is_a_domain_and_a_code() -> None:
    """The key of a link of the default domain is its code; what is no key is none."""
    assert key_of("", "sale") == "sale" and key_of("go.example.org", "sale") == "go.example.org/sale"
    assert split_key("sale") == ("", "sale") and split_key("go.example.org/sale") == (
        "go.example.org",
        "sale",
    )
    assert all(map(is_key, ("sale", "go.example.org/sale", f"{'d' * DOMAIN_CHARS_MAX}/{'x' * 64}")))
    assert not any(
        map(is_key, ("", "/sale", "a/b/sale", "A.example/sale", "a.example/", "a.example/x.y", "a b/c"))
    )
    assert not is_key(f"{'d' * (DOMAIN_CHARS_MAX + 1)}/sale")


def test_a_link_to_another_domain_is_a_loop() -> None:
    """A domain is own at the default ports and at the port of the base URL."""
    own = own_origins("http://s.example.org:8000", DOMAINS.others)
    for url in ("https://go.example.org/x", "http://go.example.org:8000/", "https://kurz.münchen.example/"):
        assert origin_of(url) in own
    assert origin_of("https://go.example.org:9000/") not in own
