"""API keys in headers, and the rights of a key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from snapurl.errors import Forbidden, Unauthorized
from snapurl.http.auth import owner_filter, presented_key, require
from snapurl.keys import PlainKey
from snapurl.model import ApiKey, Right

KEY = PlainKey.random()


def key(*rights: Right) -> ApiKey:
    return ApiKey("k", "name", b"", frozenset(rights), "", datetime.now(UTC), None)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-api-key": f"{KEY}"}, KEY),
        ({"x-api-key": f" {KEY} "}, KEY),
        ({"authorization": f"Bearer {KEY}"}, KEY),
        ({"authorization": f"bearer  {KEY} "}, KEY),
        ({"authorization": f"Bearer {KEY}", "x-api-key": f"{KEY}"}, KEY),
    ],
)
def test_a_key_is_found_in_either_header(headers: dict[str, str], found: PlainKey | None) -> None:
    """X-Api-Key and Authorization: Bearer are equivalent."""
    assert presented_key(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}", "x-api-key": f"{PlainKey.random()}"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer a"},
        {"x-api-key": ""},
        {"authorization": "Bearer"},
        {"authorization": ""},
    ],
)
def test_unclear_headers_are_refused(headers: dict[str, str]) -> None:
    """Two different keys, another scheme, or what is no key is refused and not treated as anonymous."""
    with pytest.raises(Unauthorized):
        presented_key(headers)


def test_rights() -> None:
    """A key has exactly its rights, an admin key has all, and a request without a key has none."""
    assert require(key(Right.READ), Right.READ)
    assert require(key(Right.ADMIN), Right.CHANGE)
    with pytest.raises(Forbidden):
        require(key(Right.READ, Right.CREATE), Right.CHANGE)
    with pytest.raises(Unauthorized):
        require(None, Right.READ)


def test_whose_links_a_key_reaches() -> None:
    """A key reaches the links that it owns; an admin key reaches all links."""
    assert owner_filter(key(Right.READ)) == "k"
    assert owner_filter(key(Right.ADMIN)) is None
