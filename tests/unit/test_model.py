"""The fields of a link, and the fingerprints of requests with an Idempotency-Key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from snapurl import model
from snapurl.model import Draft, LinkPatch

URL = "https://example.org/"
AT = datetime(2030, 1, 31, 12, tzinfo=UTC)
FULL: dict[str, Any] = {
    "url": "https://example.org/a?b=c",
    "alias": "spring-sale",
    "title": 'Grüße ❤ "x"',
    "tags": ("sale", "2030"),
    "redirect_status": 308,
    "expires_at": datetime(2030, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("draft", "digest"),
    [
        (Draft(URL), "8063569a402d30734def99d86068ee4424adcd71a3bbb898e0e0ab85618e9e9f"),
        (
            Draft(URL, alias="spring-sale"),
            "ca484d169cf62d863098c89c5678495dbcfc93d1efb37f0a38454dcda483c6f8",
        ),
        (
            Draft(URL, redirect_status=301, expires_at=AT),
            "841dd2d7e4d67c98bc70eb2206d48988ca62b640dfefae0c975ac1cdf81d69d8",
        ),
        (
            Draft(**{**FULL, "alias": None}),
            "0184a8fea9fae852fcd6d1252e0a296744aeb29bf39519ae0a2e69444df2874f",
        ),
    ],
)
def test_fingerprints_outlive_upgrades(draft: Draft, digest: str) -> None:
    """A repeat that reaches a newer version has the fingerprint stored by the older one."""
    assert draft.fingerprint().hex() == digest


class DraftWithRemark(Draft, kw_only=True):
    """A draft in a version with one more field."""

    remark: str | None = None


def test_a_new_field_leaves_old_fingerprints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body without a new field keeps its fingerprint; a body with it gets another, whatever the value."""
    old = Draft(**FULL).fingerprint()
    monkeypatch.setattr(model, "_LATER_FIELDS", model._later_fields(DraftWithRemark))
    assert DraftWithRemark(**FULL).fingerprint() == old
    remarked = {DraftWithRemark(**FULL, remark=remark).fingerprint() for remark in ("", "a", "b")}
    assert len(remarked | {old}) == 4


def test_a_fingerprint_says_nothing_of_a_password() -> None:
    """Requests with and without a password differ; which password it is does not show in what is stored."""
    one, other = (Draft(URL, password=password) for password in ("open sesame", "close sesame"))
    other.password_hash = "$argon2id$"
    assert one.fingerprint() == other.fingerprint() != Draft(URL).fingerprint()
    assert "sesame" not in repr(one) and "argon" not in repr(other)


@pytest.mark.parametrize("name", FULL)
def test_every_field_counts_for_the_fingerprint(name: str) -> None:
    """A request that differs in one field is not a repeat."""
    less = {key: value for key, value in FULL.items() if key != name}
    other = Draft(**{"url": URL, **less})
    assert other.fingerprint() != Draft(**FULL).fingerprint()


def test_a_patch_sets_only_what_a_client_may_set() -> None:
    """A patch of the code, the owner or an unknown field fails as a bug."""
    assert LinkPatch(title=None).values == {"title": None}
    assert "sesame" not in repr(LinkPatch(password="open sesame"))
    with pytest.raises(AssertionError):
        LinkPatch(owner="me")
