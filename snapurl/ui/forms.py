"""The form of a link: from what was typed to the fields that the API takes, and back. Pure.

The API's own schemas check the fields, so the dashboard refuses what the API refuses, in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from snapurl.errors import FieldError, SnapURLError
from snapurl.model import Link

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
_DATE = "%Y-%m-%dT%H:%M"
_WITHOUT_SCHEME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+([:/?#].*)?")
_OFFSET = re.compile(r"-?[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class LinkForm:
    """The fields of the form as text. `expires_at` is a date and time of UTC, as browsers write them.

    `expires` is NEVER, ON_DATE or one of PERIODS.
    """

    url: str = ""
    alias: str = ""
    title: str = ""
    tags: str = ""
    status: str = "302"
    expires: str = NEVER
    expires_at: str = ""

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> LinkForm:
        """Returns what was typed; a field that the form lacks has its default."""
        known = {name: form[name].strip() for name in cls.__slots__ if name in form}
        typed = cls(**known)
        return replace(typed, url=_with_scheme(typed.url), expires_at=_in_utc(typed.expires_at, form))

    @classmethod
    def of_link(cls, link: Link) -> LinkForm:
        """Returns the form that shows a link."""
        return cls(
            url=link.url,
            title=link.title or "",
            tags=", ".join(link.tags),
            status=str(link.redirect_status),
            expires=NEVER if link.expires_at is None else ON_DATE,
            expires_at="" if link.expires_at is None else f"{link.expires_at.astimezone(UTC):{_DATE}}",
        )

    def fields(self, now: datetime) -> dict[str, Any]:
        """Returns the fields of a link, as in the body of a request to the API."""
        tags = [tag for part in self.tags.split(",") if (tag := part.strip())]
        return {
            "url": self.url,
            "title": self.title or None,
            "tags": list(dict.fromkeys(tags)),
            "redirect_status": int(self.status) if self.status in dict(STATUSES) else self.status,
            "expires_at": self._expiry(now),
        }

    def draft(self, now: datetime) -> dict[str, Any]:
        """Returns the body of a create."""
        return self.fields(now) | ({"alias": self.alias} if self.alias else {})

    def changes(self, shown: LinkForm, now: datetime) -> dict[str, Any]:
        """Returns the body of a change: the fields that differ from those that the form has shown."""
        before = shown.fields(now)
        return {name: value for name, value in self.fields(now).items() if value != before[name]}

    def _expiry(self, now: datetime) -> str | None:
        if self.expires == NEVER:
            return None
        if self.expires in PERIODS:
            return f"{now + PERIODS[self.expires][1]:%Y-%m-%dT%H:%M:%SZ}"
        return (
            f"{self.expires_at}:00Z" if re.fullmatch(r"[^:]+:[0-9]{2}", self.expires_at) else self.expires_at
        )


def errors_by_field(refusal: SnapURLError | None) -> dict[str, str]:
    """Returns what is wrong with each field of the form, as sentences. Of an item of a list it is the list's."""
    found: dict[str, str] = {}
    for error in refusal.fields if refusal else ():
        found.setdefault(_field(error), f"{error.detail[:1].upper()}{error.detail[1:]}.")
    return found


def _field(error: FieldError) -> str:
    name = error.pointer.split("/")[1] if "/" in error.pointer else ""
    return {"redirect_status": "status"}.get(name, name)


def _with_scheme(url: str) -> str:
    """Adds https:// to what begins with a host name."""
    return f"https://{url}" if _WITHOUT_SCHEME.fullmatch(url) else url


def _in_utc(text: str, form: Mapping[str, str]) -> str:
    """Returns a date and time in UTC. The form has the browser's offset from UTC in minutes; without it, it is UTC.

    What is no date and time is returned as it is, for the schema to refuse.
    """
    offset = form.get("utc_offset", "0")
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return text
    if _OFFSET.fullmatch(offset):
        moment += timedelta(minutes=int(offset))
    return f"{moment:{_DATE}}"
