"""Request bodies: what is accepted, what is refused, and where the refusal points."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from snapurl.domains import Domains
from snapurl.errors import BadRequest, Invalid, SnapURLError
from snapurl.http.schema import requests
from snapurl.http.schema.requests import (
    ERRORS_MAX,
    Bulk,
    LinkChange,
    LinkDraft,
    Rules,
    check,
    draft_of,
    parse_json,
)
from snapurl.model import LINK_FIELDS, Draft
from snapurl.urls import UrlPolicy, own_origins

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DOMAINS = Domains.of("https://s.example.org", ["go.example.org"])
RULES = Rules(UrlPolicy(500, own_origins("https://s.example.org", [])), DOMAINS, NOW)
URL = "https://example.org/"
VALUES = 1_000_000  # more than any body here has


def draft(**fields: object) -> Draft:
    return check(LinkDraft, {"url": URL, **fields}, RULES).as_draft()


def refused(value: object) -> dict[str, str]:
    """Returns the errors of a refused draft as detail by pointer."""
    with pytest.raises(Invalid) as caught:
        check(LinkDraft, value, RULES)
    return {field.pointer: field.detail for field in caught.value.fields}


def test_a_url_is_enough() -> None:
    """A URL alone is a valid create; every other field has a default."""
    assert draft() == Draft(URL)


def test_every_field_is_taken() -> None:
    """A create with every field is read as sent, with the expiry converted to UTC."""
    full = draft(
        alias="a-b_C9",
        title="Title ❤",
        tags=["x", "y"],
        redirect_status=308,
        expires_at="2030-01-01T02:00:00.5+01:00",
    )
    assert full == Draft(
        URL, "Title ❤", ("x", "y"), 308, datetime(2030, 1, 1, 1, 0, 0, 500_000, tzinfo=UTC), alias="a-b_C9"
    )


@pytest.mark.parametrize(
    ("fields", "pointer", "why"),
    [
        ({"url": None}, "/url", "string"),
        ({"url": 7}, "/url", "string"),
        ({"url": ""}, "/url", "whole URL"),
        ({"url": "javascript:alert(1)"}, "/url", "http"),
        ({"url": "https://s.example.org/x"}, "/url", "loop"),
        ({"url": "https://example.org/" + "x" * 500}, "/url", "at most"),
        ({"url": "https://example.org/\ud800"}, "/url", "control"),
        ({"alias": ""}, "/alias", "characters"),
        ({"alias": "x" * 65}, "/alias", "characters"),
        ({"alias": "a b"}, "/alias", "characters"),
        ({"alias": "ä"}, "/alias", "characters"),
        ({"alias": "a\n"}, "/alias", "characters"),
        ({"alias": "API"}, "/alias", "reserved"),
        ({"alias": 5}, "/alias", "string"),
        ({"title": "x" * 301}, "/title", "at most 300"),
        ({"title": "a\x00b"}, "/title", "control"),
        ({"title": "a\nb"}, "/title", "control"),
        ({"title": "\ud800"}, "/title", "control"),
        ({"title": 1}, "/title", "string"),
        ({"tags": "x"}, "/tags", "array"),
        ({"tags": None}, "/tags", "array"),
        ({"tags": ["x"] * 2}, "/tags", "repeat"),
        ({"tags": [str(n) for n in range(21)]}, "/tags", "at most 20"),
        ({"tags": ["x" * 51]}, "/tags/0", "at most 50"),
        ({"tags": ["a", ""]}, "/tags/1", "at least 1"),
        ({"tags": [" "]}, "/tags/0", "blank"),
        ({"tags": ["\x07"]}, "/tags/0", "control"),
        ({"tags": [1]}, "/tags/0", "string"),
        ({"redirect_status": 303}, "/redirect_status", "301"),
        ({"redirect_status": "302"}, "/redirect_status", "301"),
        ({"redirect_status": True}, "/redirect_status", "301"),
        ({"redirect_status": None}, "/redirect_status", "301"),
        ({"expires_at": "2030-01-01T00:00:00Z"}, "/expires_at", "future"),
        ({"expires_at": "2029-12-31T23:59:59Z"}, "/expires_at", "future"),
        ({"expires_at": "2031-01-01T00:00:00"}, "/expires_at", "RFC 3339"),
        ({"expires_at": "2031-01-01"}, "/expires_at", "RFC 3339"),
        ({"expires_at": "2031-13-01T00:00:00Z"}, "/expires_at", "exists"),
        ({"expires_at": "2031-01-01T00:00:60Z"}, "/expires_at", "exists"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at", "exists"),
        ({"expires_at": "\uff12031-01-01T00:00:00Z"}, "/expires_at", "RFC 3339"),
        ({"expires_at": 1_900_000_000}, "/expires_at", "string"),
        ({"code": "abc"}, "/code", "not a field"),
        ({"a/b~c": 1}, "/a~1b~0c", "not a field"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_field(fields: dict[str, Any], pointer: str, why: str) -> None:
    """The refusal points at the invalid field and says what would be valid."""
    errors = refused({"url": URL, **fields})
    assert list(errors) == [pointer]
    assert why in errors[pointer]


@pytest.mark.parametrize("value", [None, [], "x", 5, True])
def test_a_body_that_is_no_object_is_refused(value: object) -> None:
    """A body that is no object is refused with the empty pointer, which means the whole body."""
    assert refused(value) == {"": "must be an object"}


def test_all_fields_at_fault_are_told_at_once_up_to_a_bound() -> None:
    """A refusal lists all invalid fields at once, up to a bound."""
    assert set(refused({"alias": " ", "x": 1})) == {"/url", "/alias", "/x"}
    assert len(refused({f"x{n}": n for n in range(1000)})) == ERRORS_MAX


def test_moments_are_compared_in_utc() -> None:
    """An expiry is compared with the present in UTC, whatever its offset."""
    in_an_hour = (NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-11)))
    assert draft(expires_at=in_an_hour.isoformat()).expires_at == NOW + timedelta(hours=1)


def test_an_expiry_in_the_past_can_be_let_through() -> None:
    """A repeated request is accepted even if its expiry has passed meanwhile."""
    past = check(
        LinkDraft, {"url": URL, "expires_at": "2020-01-01T00:00:00Z"}, Rules(RULES.urls, DOMAINS, None)
    )
    assert past.as_draft().expires_at == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """308.0 is accepted as the integer 308, since JSON has one type of number."""
    assert type(draft(redirect_status=308.0).redirect_status) is int


def test_a_change_says_what_stays_and_what_is_cleared() -> None:
    """In a PATCH, an absent field stays unchanged, and null clears title and expiry."""
    patch = check(LinkChange, {"title": None, "tags": []}, RULES).as_patch()
    assert patch.values == {"title": None, "tags": ()}


@pytest.mark.parametrize(
    "value",
    [{}, {"alias": "x"}, {"url": None}, {"tags": None}, {"redirect_status": None}, {"version": 2}, []],
)
def test_a_change_of_nothing_or_of_the_unchangeable_is_refused(value: object) -> None:
    """A PATCH without fields, of an immutable field, or with null for a required field is refused."""
    with pytest.raises(Invalid):
        check(LinkChange, value, RULES)


def test_bulk_takes_anything_as_an_item_but_only_so_many() -> None:
    """A bulk request accepts any item up to a maximum number: items are checked one by one later."""
    assert check(Bulk, {"links": [1, None, {}]}, RULES).links == [1, None, {}]
    many: list[object] = [{}] * 1_001
    for links in ([], many, "x", None):
        with pytest.raises(Invalid):
            check(Bulk, {"links": links}, RULES)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} x", "not JSON"),
        (b"\xff", "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'[{"a": {"b": 1, "b": 2}}]', "twice"),
        (b"NaN", "no JSON number"),
        (b"[Infinity]", "no JSON number"),
        (b"-Infinity", "no JSON number"),
        (b"9" * 5_000, "number"),
        (b"[" * 20 + b"]" * 20, "deeply"),
        (b"[" * 200_000, "deeply"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "deeply"),
    ],
)
def test_bytes_that_are_not_one_clear_json_value_are_refused(raw: bytes, why: str) -> None:
    """A body that two JSON parsers could read differently is refused."""
    with pytest.raises(BadRequest, match=why):
        parse_json(raw, VALUES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
drafts = st.fixed_dictionaries(
    {"url": st.just(URL) | json_values},
    optional=dict.fromkeys(("alias", "title", "tags", "expires_at", "redirect_status", "other"), json_values),
)


@given(json_values | drafts)
def test_any_json_is_either_a_draft_or_refused(value: object) -> None:
    """Any JSON value is either a draft or refused, and the text of the refusal is bounded."""
    for model in (LinkDraft, LinkChange, Bulk):
        try:
            check(model, value, RULES)
        except Invalid as refusal:
            assert refusal.fields
            assert all(len(field.pointer) + len(field.detail) < 500 for field in refusal.fields)


TEXTS = st.sampled_from(
    ["", " ", "a", "ü❤", "a\nb", "\x00", "\ud800", "x" * 50, "x" * 51, "x" * 300, "x" * 301]
)
NEAR = {
    "url": st.sampled_from(
        [
            URL,
            "https://example.org",
            "http://münchen.de/ü",
            "https://s.example.org/x",
            "https://e.org/a/../b",
            "",
            "x",
        ]
    ),
    "alias": st.sampled_from([None, "a-b_C9", "API", "health", "x" * 64, "x" * 65, "a b"]) | TEXTS,
    "title": TEXTS | st.none(),
    "tags": st.lists(TEXTS | st.integers(0, 9).map(str), max_size=4) | st.just([*map(str, range(21))]),
    "expires_at": st.sampled_from(
        [
            None,
            "2030-01-01T00:00:00Z",
            "2030-01-01T02:00:00+01:00",
            "2031-02-29T00:00:00Z",
            "2031-01-01t00:00:00.5z",
        ]
    ),
    "redirect_status": st.sampled_from([301, 302, 307, 308, 303, 302.0, True, "302"]),
}


@given(
    json_values
    | drafts
    | st.fixed_dictionaries({"url": NEAR["url"]}, optional={key: NEAR[key] for key in NEAR if key != "url"})
    | st.fixed_dictionaries({}, optional={**NEAR, **dict.fromkeys(("tags", "other"), json_values)}),
    st.sampled_from([RULES, Rules(RULES.urls, DOMAINS, None)]),
)
def test_a_draft_is_what_the_schema_says_it_is(value: object, rules: Rules) -> None:
    """The short cut and the schema give the same draft or the same refusal."""

    def answer(read: Callable[[], Draft]) -> object:
        try:
            return read()
        except Invalid as refusal:
            return refusal.fields

    assert answer(lambda: draft_of(value, rules)) == answer(lambda: check(LinkDraft, value, rules).as_draft())


def test_the_schemas_have_the_fields_of_a_link() -> None:
    """A create takes each field of a link, alias, account, domain, a PATCH each field, with the same defaults."""
    settable = {*LINK_FIELDS, "password"} - {"password_hash"}
    assert LinkDraft.model_fields.keys() == settable | {"alias", "account", "domain"}
    assert LinkChange.model_fields.keys() == settable
    for field in fields(Draft)[1:]:
        if field.name == "password_hash":
            continue
        default = LinkDraft.model_fields[field.name].default
        assert (tuple(default) if isinstance(default, list) else default) == field.default


def test_sound_drafts_need_no_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft with every field is read without the schema, which costs five times as much."""
    monkeypatch.setattr(requests, "check", None)
    full = {
        "url": "https://example.org",
        "alias": "a-b_C9",
        "title": "Title ❤",
        "tags": ["x", "y"],
        "redirect_status": 308,
        "expires_at": "2030-01-01T02:00:00+01:00",
    }
    at = datetime(2030, 1, 1, 1, tzinfo=UTC)
    assert draft_of(full, RULES) == Draft(URL, "Title ❤", ("x", "y"), 308, at, alias="a-b_C9")
    assert draft_of({"url": URL, "alias": None, "title": None}, RULES) == Draft(URL)


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
)
def test_nesting_is_measured_as_it_is_defined(value: object) -> None:
    """A value is nested deeper than its depth minus one, and not deeper than its depth."""

    def depth(of: object) -> int:
        if not isinstance(of, dict | list):
            return 0
        return 1 + max(map(depth, of.values() if isinstance(of, dict) else of), default=0)

    assert not requests._deeper_than(value, depth(value))
    if depth(value):
        assert requests._deeper_than(value, depth(value) - 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_either_json_or_refused(raw: bytes) -> None:
    """Any bytes are either parsed as JSON or refused."""
    try:
        parse_json(raw, VALUES)
    except SnapURLError as refusal:
        assert isinstance(refusal, BadRequest)
