"""The URL policy: which URLs are accepted, and the form in which they are stored."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.urls import UrlPolicy, UrlRefused, origin_of, own_origins, parse_base_url

POLICY = UrlPolicy(2_000, own_origins("https://s.example.org", ["kurz.münchen.example", "o.example:8080"]))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTP://EXAMPLE.com:80/a", "http://example.com/a"),
        ("https://example.com/a/../b?x=1&y=%20#z", "https://example.com/b?x=1&y=%20#z"),
        ("https://münchen.de/ü?q=ü#ü", "https://xn--mnchen-3ya.de/%C3%BC?q=%C3%BC#%C3%BC"),
        ("https://i❤.ws/", "https://xn--i-7iq.ws/"),
        ("http://[::1]:3000/x", "http://[::1]:3000/x"),
        ("http://192.168.0.1/", "http://192.168.0.1/"),
        ("https://example.com/%0d%0aSet-Cookie:%20a=b", "https://example.com/%0d%0aSet-Cookie:%20a=b"),
        ("https://example.com/user@host", "https://example.com/user@host"),
        ('https://example.com/{a}|"<b>`', "https://example.com/%7Ba%7D|%22%3Cb%3E%60"),
        ("https://my_bucket.example.com/", "https://my_bucket.example.com/"),
        ("http://s.example.org:8080/x", "http://s.example.org:8080/x"),
        ("https://www.s.example.org/x", "https://www.s.example.org/x"),
        ("https://o.example/x", "https://o.example/x"),
    ],
)
def test_urls_are_stored_as_a_browser_would_request_them(text: str, stored: str) -> None:
    """A valid URL is stored in canonical ASCII form."""
    assert POLICY.check(text) == stored


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "whole URL"),
        ("example.com", "whole URL"),
        ("/relative", "whole URL"),
        ("//example.com/", "whole URL"),
        ("javascript:alert(1)", "http"),
        ("JavaScript://%0aalert(1)", "http"),
        ("data:text/html,hi", "http"),
        ("ftp://example.com/", "http"),
        ("file:///etc/passwd", "http"),
        ("http:example.com", "host"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://?x", "host"),
        ("http://:80/", "not a valid URL"),
        ("http://example.com:99999/", "port"),
        ("http://exa mple.com/", "spaces"),
        (" http://example.com/", "spaces"),
        ("http://example.com/\u00a0", "spaces"),
        ("http://example.com/\n", "spaces"),
        ("http://example.com/\x00", "control"),
        ("http://example.com/\x7f", "control"),
        ("http://example.com/\x85", "control"),
        ("http://example.com\\@evil.example/", "backslashes"),
        ("http://example.com/\ud800", "control"),
        ("https://bank.example@evil.example/", "user name"),
        ("https://user:pass@evil.example/", "user name"),
        ("https://@evil.example/", "user name"),
        ("http://xn--a/", "international"),
        ("http://xn--zzzzzz999/", "international"),
        ("http://\u202eabc.com/", "international"),
        ("http://a..b/", "host"),
        ("http://.a/", "host"),
        ("http://-a.com/", "host"),
        ("http://a-.com/", "host"),
        ("http://a,b.com/", "host"),
        (f"http://{'a' * 64}.com/", "host"),
        (f"http://{'.'.join(['a' * 60] * 5)}/", "host"),
        ("http://256.256.256.256/", "IPv4"),
        ("http://[::1", "IPv6"),
        ("https://example.com/" + "a" * 2_000, "at most"),
        ("https://example.com/" + "ü" * 1_000, "percent-encoded"),
        ("https://s.example.org/", "loop"),
        ("https://S.Example.ORG/", "loop"),
        ("http://s.example.org:80/x", "loop"),
        ("https://s.example.org:443/x", "loop"),
        ("http://o.example:8080/x", "loop"),
        ("http://user@s.example.org/x", "user name"),
        ("http://s.example.org./x", "loop"),
        ("http://\uff53.example.org/", "loop"),
        ("http://s%2eexample.org/", "loop"),
        ("http://kurz.xn--mnchen-3ya.example/", "loop"),
        ("http://kurz.münchen.example/", "loop"),
    ],
)
def test_bad_urls_are_refused_with_the_reason(text: str, why: str) -> None:
    """Anything but a plain web URL of another host is refused with a reason."""
    with pytest.raises(UrlRefused, match=why) as caught:
        POLICY.check(text)
    assert len(str(caught.value)) < 120


LOCAL = (
    "127.0.0.1", "localhost", "LOCALHOST.", "foo.localhost", "a.b.localhost.", "2130706433", "0x7f.1", "127.1",
    "127.0.0.2", "127.255.255.254", "0.0.0.0", "0", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:2]", "[::ffff:0.0.0.0]", "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", "127。0。0。1",
)  # fmt: skip


@pytest.mark.parametrize("own", ["http://127.0.0.1:9999", "http://localhost:9999", "http://[::1]:9999"])
def test_every_way_of_writing_the_own_machine_is_own(own: str) -> None:
    """A service on loopback refuses every name and address of the machine itself, at its own port only."""
    policy = UrlPolicy(2_000, own_origins(own, []))
    for host in LOCAL:
        with pytest.raises(UrlRefused, match="loop"):
            policy.check(f"http://{host}:9999/")
        assert policy.check(f"http://{host}:3000/") and policy.check(f"http://{host}/")
    for host in ("localhost.example", "notlocalhost", "128.0.0.1", "[::2]", "[::ffff:128.0.0.1]"):
        assert policy.check(f"http://{host}:9999/")


@pytest.mark.parametrize("host", LOCAL)
def test_the_own_machine_is_nobodys_own_for_a_public_service(host: str) -> None:
    """Links to the visitor's own machine are no loop for a service that is elsewhere."""
    assert POLICY.check(f"http://{host}:8000/")


@pytest.mark.parametrize(
    ("own", "same"),
    [
        ("https://[2001:db8::1]", "http://[2001:DB8:0:0::1]/x"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8:0::1]:8443/x"),
        ("https://192.0.2.1", "http://[::ffff:192.0.2.1]/x"),
        ("https://192.0.2.1", "http://3221225985/x"),
        ("https://[::ffff:192.0.2.1]", "http://192.0.2.1:80/x"),
        ("https://münchen.de", "http://XN--MNCHEN-3YA.de./x"),
    ],
)
def test_own_addresses_are_compared_as_addresses(own: str, same: str) -> None:
    """An IP address or international name is own in each of its spellings."""
    with pytest.raises(UrlRefused, match="loop"):
        UrlPolicy(2_000, own_origins(own, [])).check(same)
    assert origin_of(own) == origin_of(same)


@given(st.ip_addresses(v=4), st.sampled_from([80, 443, 8000, 65535]))
def test_all_spellings_of_an_ipv4_address_are_one(address: ipaddress.IPv4Address, port: int) -> None:
    """An IPv4 address as a number, in hexadecimal, or mapped into IPv6 leads to the same place."""
    spellings = (str(address), str(int(address)), hex(int(address)), f"[::ffff:{address}]")
    assert len({origin_of(f"http://{spelling}:{port}/") for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://s.example.org", "https://s.example.org"),
        (" https://s.example.org/ ", "https://s.example.org"),
        ("HTTPS://S.Example.ORG:443/", "https://s.example.org"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("https://kurz.münchen.example", "https://kurz.xn--mnchen-3ya.example"),
    ],
)
def test_the_public_url_is_kept_as_it_is_used(text: str, kept: str) -> None:
    """The public URL is an origin in canonical form."""
    assert parse_base_url(text) == kept


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("s.example.org", "must look like"),
        ("ftp://s.example.org", "begin with http"),
        ("https://user:pass@s.example.org", "user name"),
        ("https://s.example.org:99999", "port"),
        ("https://s.example.org:0", "port"),
        ("https://s.example.org\n", "spaces"),
        ("https://s.example.org\r\nX: y", "spaces"),
        ("https://s.example .org", "spaces"),
        ("https://s.example.org?", "without"),
        ("https://s.example.org/?x=y", "without"),
        ("https://s.example.org/#", "without"),
        ('"https://s.example.org"', "must look like"),
        ("https://'s.example.org'", "host name"),
        ('https://s.example.org"', "host name"),
        ("https://s.example.org/s", "no path"),
        ("https://s.example.org//", "no path"),
        ("https://", "must look like"),
        ("https://s_.example..org", "host"),
    ],
)
def test_a_public_url_that_could_not_be_used_is_refused(text: str, why: str) -> None:
    """What short URLs could not begin with is refused at the start, with the reason."""
    with pytest.raises(UrlRefused, match=why):
        parse_base_url(text)


@given(st.text(max_size=30))
def test_any_public_url_is_refused_or_begins_short_urls(text: str) -> None:
    """What is accepted as public URL makes short URLs that lead to its own origin."""
    try:
        base = parse_base_url(f"https://{text}")
    except UrlRefused:
        return
    assert base.isascii() and base.isprintable() and not base.endswith("/")
    with pytest.raises(UrlRefused, match="loop"):
        UrlPolicy(9_000, own_origins(base, [])).check(f"{base}/abc")


@pytest.mark.parametrize(
    "domain", ["https://s.example.org", "s.example.org/x", "a b", "user@x", "x:99999", "x:y", "::1"]
)
def test_another_domain_that_is_no_host_is_refused(domain: str) -> None:
    """A domain of the service is a host with or without a port."""
    with pytest.raises(UrlRefused):
        own_origins("https://s.example.org", [domain])


@given(st.text(max_size=60))
def test_what_is_stored_can_stand_in_a_header(tail: str) -> None:
    """A stored URL is printable ASCII without spaces, and is accepted unchanged."""
    try:
        stored = POLICY.check("https://example.com/" + tail)
    except UrlRefused:
        return
    assert stored.isascii() and stored.isprintable() and " " not in stored
    assert POLICY.check(stored) == stored


@given(st.text(min_size=1, max_size=40))
def test_no_host_can_crash_the_policy(host: str) -> None:
    """Any host is either accepted or refused, and causes no other error."""
    with contextlib.suppress(UrlRefused):
        assert POLICY.check(f"http://{host}/").startswith("http://")


@given(
    st.lists(
        st.sampled_from([*"/.?#%:@&='\"[]-_~|^`{}ü\\", "%2e", "%2E", "..", "a", "B1", "xn--", "//", " "]),
        max_size=12,
    )
)
def test_a_look_and_the_parser_agree_on_what_follows_the_host(tail: list[str]) -> None:
    """A URL that `is_plain` accepts is one that the parser leaves unchanged."""
    agree("https://example.com" + "".join(tail))


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "https:/", "ftp://"]),
    st.lists(
        st.sampled_from([*".-_:@%A[]", "a", "b9", "0", "7f", "0x", "xn--", "256", "s.example.org", "%2e"]),
        max_size=9,
    ),
    st.sampled_from(["", "/", "/x", "?x", ":80/", "./", "#"]),
)
def test_a_look_and_the_parser_agree_on_hosts(scheme: str, host: list[str], tail: str) -> None:
    """A host that `is_plain` accepts is one that the parser leaves unchanged."""
    agree(scheme + "".join(host) + tail)


@pytest.mark.parametrize(
    "text",
    [
        "http://s.example.org/",
        "http://1.2.3/",
        "http://0x7f.1/",
        "http://a.256/",
        "http://xn--a/",
        "http://a.b./",
    ],
)
def test_a_look_takes_no_host_that_has_another_form(text: str) -> None:
    """`is_plain` leaves numbers, punycode, a trailing dot and the service's own hosts to the parser."""
    assert not POLICY.is_plain(text)
    agree(text)


def test_most_urls_are_taken_at_a_glance() -> None:
    """`is_plain` accepts a common URL; a URL that is one character too long is refused by it and by the parser."""
    text = "https://www.example.org/articles/2026/a-new-one?utm_source=news%20letter&n=1#top"
    assert POLICY.is_plain(text)
    agree(text)
    for length in (2_000, 2_001):
        assert POLICY.is_plain(text.ljust(length, "x")) is (length <= 2_000)


def agree(text: str) -> None:
    """Asserts that a plain URL is one that `parse` returns unchanged."""
    if POLICY.is_plain(text):
        assert POLICY.parse(text) == POLICY.check(text) == text
