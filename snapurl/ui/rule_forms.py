"""The form of a link's rules: from what was typed to the rules that the API takes, and back. Pure.

The usual conditions have fields of their own. The others are a JSON object, as the API has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snapurl.clicks.agents import DEVICES, SYSTEMS
from snapurl.errors import FieldError, Invalid

CHOICES = {"device": DEVICES, "os": SYSTEMS}
"""The conditions that are ticked, and what there is to tick."""
NAMES = {
    "mobile": "Mobile", "tablet": "Tablet", "desktop": "Desktop", "android": "Android", "ios": "iOS",
    "windows": "Windows", "macos": "macOS", "linux": "Linux", "chromeos": "ChromeOS",
}  # fmt: skip

_URL_FIELD = re.compile(r"rule-([0-9]{1,2})-url")
_MOVE = re.compile(r"(remove|up|down)-([0-9]{1,2})")
_WITHOUT_SCHEME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+([:/?#].*)?")
_OWN_FIELDS = ("device", "os", "language", "percentage", "url")


@dataclass(frozen=True, slots=True)
class RuleForm:
    """One rule as text. `more` is a JSON object of the conditions that have no field, "" for none."""

    url: str = ""
    device: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    language: str = ""
    percentage: str = ""
    more: str = ""

    @classmethod
    def of_form(cls, form: Mapping[str, str], number: int) -> RuleForm:
        values: dict[str, Any] = {
            name: form.get(f"rule-{number}-{name}", "").strip()
            for name in ("url", "language", "percentage", "more")
        }
        values["url"] = with_scheme(values["url"])
        for name, choices in CHOICES.items():
            values[name] = tuple(choice for choice in choices if f"rule-{number}-{name}-{choice}" in form)
        return cls(**values)

    @classmethod
    def of_rule(cls, rule: Mapping[str, Any]) -> RuleForm:
        """Returns the form of a rule as links store it."""
        conditions = dict(rule["if"])
        percentage = conditions.pop("percentage", None)
        return cls(
            rule["url"],
            tuple(conditions.pop("device", ())),
            tuple(conditions.pop("os", ())),
            ", ".join(conditions.pop("language", ())),
            "" if percentage is None else str(percentage),
            json.dumps(conditions, ensure_ascii=False) if conditions else "",
        )

    def body(self, number: int) -> dict[str, Any]:
        """Returns the rule as the API takes it. Raises Invalid if `more` is no JSON object."""
        conditions: dict[str, Any] = _json_object(self.more, number) if self.more else {}
        for name in CHOICES:
            if ticked := getattr(self, name):
                conditions[name] = list(ticked)
        if self.language:
            conditions["language"] = [word for part in self.language.split(",") if (word := part.strip())]
        if self.percentage:
            conditions["percentage"] = number_or_text(self.percentage.removesuffix("%").strip())
        return {"if": conditions, "url": self.url}

    @property
    def said(self) -> str:
        """The rule in one line."""
        percentage = f"{self.percentage} %" if self.percentage else ""
        names = [NAMES[choice] for choice in (*self.device, *self.os)]
        parts = [*names, self.language, percentage, self.more]
        return f"{', '.join(filter(None, parts))} → {self.url}"


def rules_of_form(form: Mapping[str, str]) -> tuple[RuleForm, ...]:
    """Returns the rules that were typed, in their order, without those that are blank."""
    numbers = sorted(int(found[1]) for name in form if (found := _URL_FIELD.fullmatch(name)))
    return tuple(rule for number in numbers if (rule := RuleForm.of_form(form, number)) != RuleForm())


def rules_of_text(text: str | None) -> tuple[RuleForm, ...]:
    """Returns the rules of a link as it stores them."""
    return tuple(map(RuleForm.of_rule, json.loads(text))) if text else ()


def arranged(rules: Sequence[RuleForm], order: str) -> tuple[RuleForm, ...]:
    """Returns the rules after `add`, `remove-N`, `up-N` or `down-N`; after any other order, as they are."""
    found = _MOVE.fullmatch(order)
    if order == "add":
        return (*rules, RuleForm())
    if found is None or int(found[2]) >= len(rules):
        return tuple(rules)
    left, number = list(rules), int(found[2])
    rule = left.pop(number)
    if found[1] != "remove":
        left.insert(max(0, number + (1 if found[1] == "down" else -1)), rule)
    return tuple(left)


def rule_field(pointer: Sequence[str]) -> str:
    """Returns the name of the field that a pointer into `rules` means, from its parts after `rules`."""
    number, *rest = pointer
    where = rest[1] if rest[:1] == ["if"] and len(rest) > 1 else rest[0] if rest else "if"
    return f"rule-{number}-{where if where in (*_OWN_FIELDS, 'if') else 'more'}"


def with_scheme(url: str) -> str:
    """Adds https:// to what begins with a host name."""
    return f"https://{url}" if _WITHOUT_SCHEME.fullmatch(url) else url


def number_or_text(text: str) -> int | str:
    """Returns a number that is written in digits; anything else as it is, for the schema to refuse."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else text


def _json_object(text: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid(fields=(FieldError(f"/rules/{number}/more", "is not a JSON object"),))
    return found
