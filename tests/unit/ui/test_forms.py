"""The forms of links: what was typed, and what is sent again by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from snapurl.errors import Invalid, NotFound, RateLimited, SnapURLError, Unavailable
from snapurl.model import Link
from snapurl.ui.forms import LinkForm, errors_by_field, form_number, key_in_path, path_of, sentence
from snapurl.ui.retries import PAUSE_S_MAX, TRIES_MAX, retry_of
from snapurl.ui.rule_forms import RuleForm, arranged

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RULES = '[{"if":{"device":["mobile"],"percentage":20,"query":{"a":null}},"url":"https://example.org/m"}]'


def _link() -> Link:
    return Link(
        "https://example.org/", "Title", ("a", "b"), 308, NOW, False, NOW, "https://example.org/x", "1\n2",
        True, True, 7, "hash", RULES, code="full", created_at=NOW, deleted_at=None, owner="", version=3,
    )  # fmt: skip


def _sent(form: LinkForm) -> dict[str, str]:
    """Returns the fields that a browser sends of a form, with its line ends."""
    fields = {name: getattr(form, name) for name in form.__slots__ if name != "rules"}
    sent = {name: value.replace("\n", "\r\n") for name, value in fields.items() if value}
    for number, rule in enumerate(form.rules):
        texts = {name: getattr(rule, name) for name in ("url", "language", "percentage", "more")}
        sent |= {f"rule-{number}-{name}": value for name, value in texts.items()}
        sent |= {f"rule-{number}-device-{choice}": "on" for choice in rule.device}
    return sent


def test_a_form_that_nobody_touched_changes_nothing() -> None:
    """A form of every option is shown and sent without a change: there is nothing to change then."""
    shown = LinkForm.of_link(_link())
    assert LinkForm.of_form(_sent(shown)).changes(shown, NOW) == {}


def test_a_form_changes_what_was_touched_alone() -> None:
    """A change has the fields that were typed into, also those of a rule, and a password if one was typed."""
    shown = LinkForm.of_link(_link())
    typed = _sent(shown) | {"rule-0-language": "de, fr", "max_clicks": "", "password": " new "}
    del typed["off"]
    rule = {
        "if": {"query": {"a": None}, "device": ["mobile"], "language": ["de", "fr"], "percentage": 20},
        "url": "https://example.org/m",
    }
    assert LinkForm.of_form(typed).changes(shown, NOW) == {
        "enabled": True,
        "max_clicks": None,
        "rules": [rule],
        "password": " new ",
    }


def test_a_form_that_is_sent_twice_has_one_body() -> None:
    """ "In 7 days" is the same moment when a form is repeated, and counts from now when it was open for long."""
    form, once = LinkForm(url="https://example.org/", expires="week"), form_number(NOW, "abc")
    assert form.draft(NOW, once) == form.draft(NOW + timedelta(minutes=5), once)
    late = form.draft(NOW + timedelta(days=2), once)
    assert late["expires_at"] == "2030-01-10T00:00:00Z"
    assert form.draft(NOW, "nonsense") == form.draft(NOW)
    other = LinkForm(url="https://example.org/other", expires="week")
    assert form.idempotency_key(once) != other.idempotency_key(once)


@pytest.mark.parametrize("key", ["abc", "go.example.org/a_b-c"])
def test_a_link_of_any_domain_has_a_path(key: str) -> None:
    """The page of a link has an address whose last part names its domain, too, unless it is the default one."""
    part = path_of(key)
    assert "/" not in part and key_in_path(part) == key
    assert not key_in_path(f"{part}~x~y") and not key_in_path(f"{part} ")


def test_a_password_is_not_both_new_and_removed() -> None:
    """Who types a new password and removes it is asked which."""
    shown = LinkForm.of_link(_link())
    typed = LinkForm.of_form(_sent(shown) | {"password": "secret", "no_password": "on"})
    with pytest.raises(Invalid) as refusal:
        typed.changes(shown, NOW)
    assert errors_by_field(refusal.value).keys() == {"password"}
    assert "secret" not in repr(typed)


@pytest.mark.parametrize("text", ["{", "[]", "1", "[" * 100_000])
def test_conditions_that_are_no_json_object_have_their_error(text: str) -> None:
    """What is typed as other conditions and is no JSON object is refused beside its field."""
    typed = LinkForm.of_form({"url": "https://example.org/", "rule-4-url": "x", "rule-4-more": text})
    with pytest.raises(Invalid) as refusal:
        typed.draft(NOW)
    assert errors_by_field(refusal.value).keys() == {"rule-0-more"}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("up-0", "abc"), ("up-2", "acb"), ("down-0", "bac"), ("down-2", "abc"), ("remove-1", "ac"),
        ("remove-9", "abc"), ("nonsense", "abc"), ("add", "abc"),
    ],
)  # fmt: skip
def test_rules_are_rearranged(order: str, expected: str) -> None:
    """A rule goes up, down or away; one that is out of range moves nothing, and a new one is blank and last."""
    found = arranged([RuleForm(url=name) for name in "abc"], order)
    assert "".join(rule.url for rule in found) == expected
    assert len(found) == len(expected) + (order == "add")


def test_a_form_is_sent_again_with_growing_pauses_and_not_for_ever() -> None:
    """A form that nobody could answer goes again after Retry-After, later and later, and in the end not at all."""
    refusal, tries, pauses = Unavailable(retry_after_s=3.2), 0, []
    while (retry := retry_of(refusal, {"tries": str(tries)})).pause_s is not None:
        tries = retry.tries
        pauses.append(retry.pause_s)
    assert pauses == [4, 8, 16, PAUSE_S_MAX, PAUSE_S_MAX] and len(pauses) == TRIES_MAX
    assert retry_of(refusal, {"tries": "-1"}).pause_s == 4


@pytest.mark.parametrize("refusal", [Invalid("no"), NotFound(), RateLimited("no", retry_after_s=1.0), None])
def test_only_what_nobody_could_answer_is_sent_again(refusal: SnapURLError | None) -> None:
    """A refusal that the same form would get again is not repeated."""
    assert retry_of(refusal, {}).pause_s is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.2, "1 second"), (61, "61 seconds"), (600, "10 minutes"), (7_200, "2 hours")]
)
def test_a_limit_says_when_it_ends(seconds: float, expected: str) -> None:
    """Beyond a limit the form says when to try again."""
    assert sentence(RateLimited("too many", retry_after_s=seconds)) == f"Too many. Try again in {expected}."
