"""The form of a link: from what was typed to the fields that the API takes, and back. Pure.

The API's own schemas check the fields, so the dashboard refuses what the API refuses, in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from hashlib import sha256
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from snapurl.codes import is_key
from snapurl.errors import FieldError, Invalid, RateLimited, SnapURLError
from snapurl.model import Link
from snapurl.ui.rule_forms import (
    RuleForm,
    number_or_text,
    rule_field,
    rules_of_form,
    rules_of_text,
    with_scheme,
)

NEVER, ON_DATE = "never", "date"
PERIODS = {
    "hour": ("In 1 hour", timedelta(hours=1)),
    "day": ("In 1 day", timedelta(days=1)),
    "week": ("In 7 days", timedelta(days=7)),
    "month": ("In 30 days", timedelta(days=30)),
    "year": ("In 1 year", timedelta(days=365)),
}
STATUSES = (
    ("302", "302 Found: may change later"),
    ("301", "301 Moved Permanently: browsers remember it"),
    ("307", "307 Temporary Redirect: keeps the method"),
    ("308", "308 Permanent Redirect: keeps the method"),
)
LEFT_OUT = "left_out"  # says that a form had a password
_DATE = "%Y-%m-%dT%H:%M"
_OFFSET = re.compile(r"-?[0-9]{1,4}")
_OLD_ZONES = ("Brazil/", "Canada/", "Chile/", "Etc/", "Mexico/", "US/")  # other names of zones that have one


@dataclass(frozen=True, slots=True)
class LinkForm:
    """The fields of the form as text. `expires_at` and `starts_at` are dates and times of UTC, as browsers write
    them.

    `domain` is "" for the default one. `expires` is NEVER, ON_DATE or one of PERIODS. What is ticked is "on", else
    "". `password` is a new one; `no_password` removes the one that there is.
    """

    url: str = ""
    alias: str = ""
    title: str = ""
    tags: str = ""
    expires: str = NEVER
    expires_at: str = ""
    status: str = "302"
    off: str = ""
    starts_at: str = ""
    expired_url: str = ""
    max_clicks: str = ""
    forward_query: str = ""
    forward_path: str = ""
    password: str = field(default="", repr=False)
    no_password: str = ""
    note: str = ""
    rules: tuple[RuleForm, ...] = ()
    domain: str = ""

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> LinkForm:
        """Returns what was typed; a field that the form lacks has its default."""
        known = {name: form[name].strip() for name in cls.__slots__ if name in form and name != "rules"}
        typed = cls(**known, rules=rules_of_form(form))
        return replace(
            typed,
            url=with_scheme(typed.url),
            expired_url=with_scheme(typed.expired_url),
            expires_at=_in_utc(typed.expires_at, form.get("expires_at_offset", "0")),
            starts_at=_in_utc(typed.starts_at, form.get("starts_at_offset", "0")),
            password=form.get("password", ""),
            note=typed.note.replace("\r\n", "\n"),
        )

    @classmethod
    def of_link(cls, link: Link) -> LinkForm:
        """Returns the form that shows a link."""
        return cls(
            url=link.url,
            title=link.title or "",
            tags=", ".join(link.tags),
            expires=NEVER if link.expires_at is None else ON_DATE,
            expires_at=_typed(link.expires_at),
            status=str(link.redirect_status),
            off="" if link.enabled else "on",
            starts_at=_typed(link.starts_at),
            expired_url=link.expired_url or "",
            max_clicks=str(link.max_clicks or ""),
            forward_query="on" if link.forward_query else "",
            forward_path="on" if link.forward_path else "",
            note=link.note or "",
            rules=rules_of_text(link.rules),
        )

    @property
    def has_options(self) -> bool:
        """Whether any field differs from its default that is not always in sight."""
        return any(getattr(self, name) != getattr(_BLANK, name) for name in OPTIONS)

    def fields(self, now: datetime) -> dict[str, Any]:
        """Returns the fields of a link, as in the body of a request to the API, but for its password.

        Raises Invalid.
        """
        return {
            "url": self.url,
            "title": self.title or None,
            "tags": split_words(self.tags),
            "redirect_status": int(self.status) if self.status in dict(STATUSES) else self.status,
            "expires_at": self._expiry(now),
            "enabled": not self.off,
            "starts_at": _sent(self.starts_at) if self.starts_at else None,
            "expired_url": self.expired_url or None,
            "note": self.note or None,
            "forward_query": bool(self.forward_query),
            "forward_path": bool(self.forward_path),
            "max_clicks": number_or_text(self.max_clicks) if self.max_clicks else None,
            "rules": [rule.body(number) for number, rule in enumerate(self.rules)],
        }

    def draft(self, now: datetime, once: str = "") -> dict[str, Any]:
        """Returns the body of a create: what is not at its default. `once` is the number of the form.

        The same form has the same body soon after, so that it can be sent twice. Raises Invalid.
        """
        made = _made_at(once)
        if made is not None and self.expires in PERIODS and now - made < PERIODS[self.expires][1] / 10:
            now = made
        usual = _BLANK.fields(now)
        given = {name: value for name, value in self.fields(now).items() if value != usual[name]}
        given |= {name: text for name, text in (("alias", self.alias), ("domain", self.domain)) if text}
        return {"url": self.url} | given | ({"password": self.password} if self.password else {})

    def idempotency_key(self, once: str) -> str:
        """Returns the key of a create. A form has another one after something else was typed into it: only a repeat
        must make no second link."""
        typed = [getattr(self, name) for name in self.__slots__ if name != "password"]
        return f"ui:{once}:{sha256(repr(typed).encode()).hexdigest()[:32]}"

    def changes(self, shown: LinkForm, now: datetime) -> dict[str, Any]:
        """Returns the body of a change: the fields that differ from what the form has shown. Raises Invalid."""
        before = shown.fields(now)
        found = {name: value for name, value in self.fields(now).items() if value != before[name]}
        if self.password and self.no_password:
            raise Invalid(fields=(FieldError("/password", "is both new and to be removed: choose one"),))
        if self.password or self.no_password:
            found["password"] = self.password or None
        return found

    def _expiry(self, now: datetime) -> str | None:
        if self.expires == NEVER:
            return None
        if self.expires in PERIODS:
            return f"{now + PERIODS[self.expires][1]:%Y-%m-%dT%H:%M:%SZ}"
        return _sent(self.expires_at)


def form_number(now: datetime, token: str) -> str:
    """Returns the number of a new form, which says when it was made."""
    return f"{int(now.timestamp()):010x}{token}"


def is_form_number(text: str) -> bool:
    return re.fullmatch(r"00[0-9a-f]{8,62}", text) is not None


def _made_at(once: str) -> datetime | None:
    return datetime.fromtimestamp(int(once[:10], 16), UTC) if is_form_number(once) else None


_BLANK = LinkForm()
OPTIONS = LinkForm.__slots__[LinkForm.__slots__.index("status") :]
"""The fields that are folded away."""


LABELS = {
    "url": "Target", "title": "Title", "tags": "Tags", "expires_at": "Expires", "status": "Status",
    "off": "Switched off", "starts_at": "Starts", "expired_url": "Once expired", "max_clicks": "Clicks at most",
    "forward_query": "Forwards the query", "forward_path": "Forwards the path", "note": "Note",
}  # fmt: skip
_MOMENTS = ("expires_at", "starts_at")
_ALWAYS = ("url", "title", "tags", "expires_at", "status")


def compared(current: LinkForm, typed: LinkForm, zone: tzinfo) -> list[tuple[str, str, str]]:
    """Returns label, current and typed text of the fields, those of options only where the two differ."""

    def shown(form: LinkForm, name: str) -> str:
        text: str = getattr(form, name)
        return f"{in_zone(text, zone)} {zone}".replace("T", " ", 1) if text and name in _MOMENTS else text

    pairs = [(name, label, shown(current, name), shown(typed, name)) for name, label in LABELS.items()]
    rows = [(label, theirs, mine) for name, label, theirs, mine in pairs if name in _ALWAYS or theirs != mine]
    if current.rules != typed.rules:
        theirs, mine = ("\n".join(rule.said for rule in form.rules) for form in (current, typed))
        rows.append(("Rules", theirs, mine))
    return rows


def path_of(key: str) -> str:
    """Returns the key of a link as a part of a path: `domain~code`, or its code."""
    return key.replace("/", "~")


def key_in_path(text: str) -> str:
    """Returns the key of a link that is a part of a path, "" if it cannot be one."""
    key = text.replace("~", "/")
    return key if is_key(key) else ""


def carried(form: Mapping[str, str]) -> dict[str, str]:
    """Returns what of a form another page carries along to send it again: all but a password, which no page says.

    That there was one is carried along, so that the form is not taken without it.
    """
    kept = {name: value for name, value in form.items() if name != "password"}
    return kept | ({LEFT_OUT: "yes"} if form.get("password") else {})


def check_carried(form: Mapping[str, str]) -> None:
    """Raises Invalid for a form whose password was left out on its way."""
    if LEFT_OUT in form and not form.get("password"):
        raise Invalid(fields=(FieldError("/password", "has to be typed again: it was not kept"),))


def split_words(text: str) -> list[str]:
    """Returns the words of a field that has them between commas, each once."""
    return list(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def sentence(refusal: SnapURLError) -> str:
    """Returns what is said of a refusal, and of one that a limit caused, when to try again."""
    detail = refusal.fields[0].detail if refusal.fields else refusal.public_detail
    said = f"{detail[:1].upper()}{detail[1:]}."
    if isinstance(refusal, RateLimited) and refusal.retry_after_s is not None:
        said += f" Try again in {shown_seconds(refusal.retry_after_s)}."
    return said


def shown_seconds(seconds: float) -> str:
    """Returns a time to wait in one unit, rounded up: "1 second", "12 minutes"."""
    whole = ceil(seconds)
    number, unit = (whole, "second") if whole <= 90 else (ceil(whole / 60), "minute")
    if number > 90:
        number, unit = ceil(whole / 3_600), "hour"
    return f"{number} {unit}{'' if number == 1 else 's'}"


def errors_by_field(refusal: SnapURLError | None) -> dict[str, str]:
    """Returns what is wrong with each field of the form, as sentences. Of an item of a list it is the list's."""
    found: dict[str, str] = {}
    for error in refusal.fields if refusal else ():
        found.setdefault(_field(error), f"{error.detail[:1].upper()}{error.detail[1:]}.")
    return found


def _field(error: FieldError) -> str:
    _, name, *rest = error.pointer.split("/") if "/" in error.pointer else ("", "")
    if name == "rules" and rest:
        return rule_field(rest)
    return {"redirect_status": "status", "enabled": "off"}.get(name, name)


def _in_utc(text: str, offset: str) -> str:
    """Returns a date and time in UTC. `offset` is the browser's from UTC then, in minutes, or a time zone.

    What is no date and time is returned as it is, for the schema to refuse.
    """
    zone = time_zone(offset)
    minutes = int(offset) if _OFFSET.fullmatch(offset) else 0
    try:
        local = datetime.fromisoformat(text)
        if zone is not None:
            return f"{local.replace(tzinfo=zone).astimezone(UTC):{_DATE}}"
        moment = local.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    except (ValueError, OverflowError):
        return text
    return f"{moment:{_DATE}}"


def in_zone(text: str, zone: tzinfo) -> str:
    """Returns a date and time of UTC in a zone: the inverse. What is no date and time is returned as it is."""
    try:
        return f"{datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(zone):{_DATE}}"
    except (ValueError, OverflowError):
        return text


def time_zone(name: str) -> ZoneInfo | None:
    """Returns the time zone of that name; None if there is none."""
    return ZoneInfo(name) if name in time_zones() else None


@cache
def time_zones() -> frozenset[str]:
    """Returns the names of the time zones that people choose from: `Europe/Berlin`, `UTC`."""
    names = (name for name in available_timezones() if "/" in name and not name.startswith(_OLD_ZONES))
    return frozenset(names) | {"UTC"}


def _typed(moment: datetime | None) -> str:
    """Returns a moment as the form has it."""
    return "" if moment is None else f"{moment.astimezone(UTC):{_DATE}}"


def _sent(text: str) -> str:
    """Returns a date and time of the form as the API takes it."""
    return f"{text}:00Z" if re.fullmatch(r"[^:]+:[0-9]{2}", text) else text
