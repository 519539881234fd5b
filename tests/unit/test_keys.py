"""The text form of API keys, and what `create_key` refuses without a query."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from snapurl.config import load_settings
from snapurl.errors import ConfigError
from snapurl.keys import PlainKey, create_key
from snapurl.model import ApiKey


def test_a_key_comes_apart_as_it_was_put_together() -> None:
    """The text form of a key parses back to the same id and secret."""
    plain = PlainKey.random()
    assert re.fullmatch(r"snap_[0-9A-Za-z]{10}_[0-9A-Za-z]{32}", str(plain))
    assert PlainKey.parse(str(plain)) == plain
    assert PlainKey.random() != plain


def test_the_secret_is_not_in_its_repr() -> None:
    """The repr of a key, as in a stack trace or a log, does not show the secret."""
    plain = PlainKey.random()
    assert plain.secret not in repr(plain)


@pytest.mark.parametrize(
    "text", ["", "snap_", "x" * 48, "snap_0123456789_short", "SNAP_0123456789_" + "a" * 32, "é" * 48]
)
def test_what_is_no_key(text: str) -> None:
    """A text that is not a key is refused without a look-up."""
    assert PlainKey.parse(text) is None
    assert PlainKey.parse(str(PlainKey.random()) + "\n") is None


def test_only_its_own_secret_opens_a_key() -> None:
    """Only the key's secret matches the stored hash."""
    plain = PlainKey.random()
    key = ApiKey(plain.key_id, "n", plain.secret_hash, frozenset(), "", datetime.now(UTC), None)
    assert plain.matches(key)
    assert not PlainKey.random().matches(key)
    assert not plain.matches(replace(key, secret_hash=b""))


@pytest.mark.parametrize(
    ("name", "rights", "limit"),
    [
        ("", ["read"], ""),
        ("  ", ["read"], ""),
        ("a\nb", ["read"], ""),
        ("x" * 101, ["read"], ""),
        ("n", [], ""),
        ("n", ["root"], ""),
        ("n", ["read"], "fast"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_in_one_line(name: str, rights: list[str], limit: str) -> None:
    """An invalid name, right or limit is refused in one line before any query: these settings have no shards."""
    with pytest.raises(ConfigError) as caught:
        await create_key(load_settings(shards=""), name, rights, limit)
    assert "\n" not in caught.value.detail and "SHARDS" not in caught.value.detail
