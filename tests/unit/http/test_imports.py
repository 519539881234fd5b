"""Bodies of imports: where a link goes, and what of it may not be set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from snapurl.domains import Domains
from snapurl.errors import Invalid
from snapurl.http.schema.imports import import_of
from snapurl.http.schema.requests import Rules
from snapurl.model import Draft, Origin
from snapurl.urls import UrlPolicy

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
RULES = Rules(
    UrlPolicy(8_192, frozenset({("s.example.org", None)})),
    Domains.of("https://s.example.org", ["go.example.org"]),
    None,
)
URL = "https://example.org/"


def read(**fields: Any) -> tuple[Draft, Origin]:
    return import_of({"url": URL, **fields}, RULES, NOW)


@pytest.mark.parametrize(
    ("domain", "place"),
    [("go.example.org", "go.example.org"), ("S.example.org", None), ("elsewhere.example", None), ("", None)],
)
def test_a_link_keeps_its_domain_if_the_service_has_it(domain: str, place: str | None) -> None:
    """All others go to the default domain."""
    if domain:
        assert read(alias="abc", domain=domain)[0].domain == place
    else:
        assert read(alias="abc")[0].domain is None


@pytest.mark.parametrize(
    ("pointer", "fields"),
    [
        ("/domain", {"domain": "a b"}),
        ("/domain", {"domain": 7}),
        ("/created_at", {"created_at": "2030-02-01T00:00:00Z"}),
        ("/created_at", {"created_at": "1970-01-01T00:00:00Z"}),
        ("/clicks", {"clicks": 1.5}),
        ("/id", {"id": "1"}),
        ("/account", {"account": "acc_0123456789"}),
        ("/password", {"password": "secret"}),
        ("/url", {"url": "https://s.example.org/x"}),
        ("/else", {"else": 1}),
    ],
)
def test_what_cannot_be_imported_is_named(pointer: str, fields: dict[str, Any]) -> None:
    """The refusal points at the field."""
    with pytest.raises(Invalid) as refusal:
        read(**fields)
    assert [field.pointer for field in refusal.value.fields] == [pointer]
