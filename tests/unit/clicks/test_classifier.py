"""What is kept of a click: classes, and a digest of its visitor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.addresses import Clients
from snapurl.clicks.agent_libraries import load
from snapurl.clicks.classifier import Classifier
from snapurl.clicks.counts import NOTHING
from snapurl.clicks.origins import Origins
from snapurl.clicks.sources import HEADER_BYTES_MAX
from snapurl.clicks.stream import VALUE_CHARS_MAX
from snapurl.clicks.tally import Said
from tests.support.clicks import said

SALT = b"0123456789abcdef"
TARGET = b"https://example.org/?utm_campaign=spring"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A classifier with the libraries."""
    read = load()
    assert read is not None, "the development environment has the extra `analytics`"
    return Classifier(read, Origins(Clients((), pytest.fail), "").read)


def test_a_click_is_kept_as_classes(classifier: Classifier) -> None:
    """Each kind has what the request says of it, and a kind of which it says nothing is not there."""
    told = said("news.example", query=b"utm_source=mail&qr", language=b"de-AT,en")
    found = classifier.of(("a", told, "203.0.113.9 AT", TARGET), SALT)
    assert {str(kind): value for kind, value in found.values} == {
        "referrer": "news.example",
        "country": "AT",
        "device": "desktop",
        "os": "linux",
        "browser": "firefox",
        "language": "de-AT",
        "utm_source": "mail",
        "utm_campaign": "spring",
        "channel": "qr",
    }
    assert not found.is_bot and len(found.visitor) == 8


def test_who_refuses_tracking_is_counted_and_nothing_else(classifier: Classifier) -> None:
    """With `DNT: 1` or `Sec-GPC: 1` nothing of a click is kept, nor is it where the tally had no room."""
    told = said("news.example", query=b"qr", language=b"de", refuses=True)
    assert classifier.of(("a", told, "203.0.113.9 AT", TARGET), SALT) == NOTHING
    assert classifier.of(("a", None, "", b""), SALT) == NOTHING


def test_a_bot_has_a_name_and_is_no_visitor(classifier: Classifier) -> None:
    """Of a bot only the name is kept: break-downs and visitors are those of people."""
    told = said("news.example", b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    found = classifier.of(("a", told, "203.0.113.9 US", TARGET), SALT)
    assert ([(str(kind), value) for kind, value in found.values], found.is_bot) == (
        [("bot", "Googlebot")],
        True,
    )
    assert found.visitor == b""


def test_a_visitor_is_the_same_on_one_link_and_day_only(classifier: Classifier) -> None:
    """Address and user agent make a visitor; other days and other links have other digests of the same person."""

    def visitor(
        code: str = "a", address: str = "203.0.113.9", salt: bytes = SALT, agent: bytes = b"x"
    ) -> bytes:
        return classifier.of((code, said("", agent), address, b""), salt).visitor

    same = {visitor(), visitor(address="203.0.113.9 AT"), visitor(agent=b" x ")}
    others = {visitor("b"), visitor(address="203.0.113.8"), visitor(salt=b"other"), visitor(agent=b"y")}
    assert (len(same), len(others | same)) == (1, 5)
    assert (
        visitor(address="2001:db8::1") == visitor(address="2001:db8::2") == visitor(address="2001:db8::/64")
    )
    assert visitor(salt=b"") == visitor(address="") == b""


HEADER = st.none() | st.binary(max_size=HEADER_BYTES_MAX)


@given(
    told=st.tuples(HEADER, HEADER, HEADER, HEADER, st.none()),
    address=st.text(max_size=80),
    target=st.binary(),
)
def test_whatever_is_said_only_classes_leave(
    classifier: Classifier, told: Said, address: str, target: bytes
) -> None:
    """No request raises an error, and each value of it is short and can be printed and stored."""
    classifier.renew()
    found = classifier.of(("a", told, address, target), SALT)
    kinds = [kind for kind, _ in found.values]
    assert len(kinds) == len(set(kinds))
    assert all(0 < len(value) <= VALUE_CHARS_MAX and value.isprintable() for _, value in found.values)
