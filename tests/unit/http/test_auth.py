"""API keys in headers, and the rights of a key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from snapurl.errors import Forbidden, Unauthorized
from snapurl.http.auth import owner_filter, presented_key, require
from snapurl.model import ApiKey, Right


def key(*rights: Right) -> ApiKey:
    return ApiKey("k", "name", b"", frozenset(rights), "", datetime.now(UTC), None)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-api-key": "a"}, "a"),
        ({"x-api-key": " a "}, "a"),
        ({"authorization": "Bearer a"}, "a"),
        ({"authorization": "bearer  a "}, "a"),
        ({"authorization": "Bearer a", "x-api-key": "a"}, "a"),
    ],
)
def test_a_key_is_found_in_either_header(headers: dict[str, str], found: str | None) -> None:
    """X-Api-Key and Authorization: Bearer are equivalent."""
    assert presented_key(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer a", "x-api-key": "b"},
        {"authorization": "Basic a"},
        {"authorization": "Bearer"},
        {"authorization": ""},
    ],
)
def test_unclear_headers_are_refused(headers: dict[str, str]) -> None:
    """Two different keys, or a scheme other than Bearer, are refused and not treated as anonymous."""
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
