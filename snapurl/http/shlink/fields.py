"""The fields of a link as Shlink's clients send them: from a body to a draft or a patch, or a refusal.

What cannot be honoured is refused and never left out: a link must not do more or less than its maker was told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from snapurl.codes import CODE_CHARS_MAX, CODE_LENGTH
from snapurl.errors import FieldError, Invalid
from snapurl.http.schema.requests import TITLE_CHARS_MAX, LinkChange, check, draft_of
from snapurl.http.shlink.call import Call, read_date
from snapurl.http.shlink.problems import invalid
from snapurl.model import Draft, Link, LinkPatch

LENGTH_MIN = 4  # of a code that Shlink makes up

_EDITED = ("longUrl", "tags", "title", "validSince", "validUntil", "maxVisits", "forwardQuery", "crawlable")
_CREATED = (*_EDITED, "customSlug", "shortCodeLength", "findIfExists", "domain", "pathPrefix")
_IGNORED = ("validateUrl", "domain")  # Shlink takes no notice of these either, the second in a change
_ONLY_CREATED = frozenset(_CREATED) - {*_EDITED, *_IGNORED}


def draft_from(call: Call) -> Draft:
    """Returns the draft of a link. Raises Invalid."""
    fields = _Fields(call.fields)
    fields.refuse_unknown({*_CREATED, *_IGNORED})
    if fields.text("pathPrefix"):
        raise invalid("pathPrefix", "codes have no slash here, so there are no prefixes")
    value: dict[str, Any] = {"url": fields.text("longUrl"), "tags": fields.tags()}
    value |= {
        "title": fields.title(),
        "starts_at": fields.iso("validSince"),
        "expires_at": fields.iso("validUntil"),
        "max_clicks": fields.number("maxVisits"),
        "forward_query": fields.flag("forwardQuery") is not False,
        "alias": _slug(fields),
        "domain": call.domain(fields.text("domain")) or None,
    }
    if value["url"] is None:
        raise invalid("longUrl", "is required")
    fields.refuse_crawlable()
    given = {name: item for name, item in value.items() if item is not None}
    return draft_of(given, call.context.rules())


def may_be_found(call: Call) -> bool:
    """Whether a link that exists is as good as a new one."""
    return _Fields(call.fields).flag("findIfExists") is True


def made_up_length(call: Call) -> int | None:
    """Returns how long the code is to be, None: as long as all are. Raises Invalid."""
    length = _Fields(call.fields).number("shortCodeLength")
    if length is None:
        return None
    if not LENGTH_MIN <= length <= CODE_CHARS_MAX:
        raise invalid("shortCodeLength", f"must be from {LENGTH_MIN} to {CODE_CHARS_MAX}")
    return length if length > CODE_LENGTH else None


def patch_from(call: Call, link: Link) -> LinkPatch | None:
    """Returns what the body changes of a link, None if nothing. Raises Invalid.

    Clients send all fields of a form. Those that are as they were are left out, so that an expiry in the past stays
    and clicks are not counted anew. Dates have no fractions of seconds there.
    """
    fields = _Fields(call.fields)
    fields.refuse_unknown({*_EDITED, *_IGNORED})
    fields.refuse_crawlable()
    value: dict[str, Any] = {}
    if "longUrl" in fields:
        value["url"] = fields.text("longUrl") or ""
    if "tags" in fields:
        value["tags"] = fields.tags()
    if "title" in fields:
        value["title"] = fields.title()
    for name, ours, now in (
        ("validSince", "starts_at", link.starts_at),
        ("validUntil", "expires_at", link.expires_at),
    ):
        if name in fields and not _is_same(fields.date(name), now):
            value[ours] = fields.iso(name)
    if "maxVisits" in fields:
        value["max_clicks"] = fields.number("maxVisits")
    if (forwards := fields.flag("forwardQuery")) is not None:
        value["forward_query"] = forwards
    as_it_is: Mapping[str, Any] = {
        "url": link.url,
        "tags": list(link.tags),
        "title": link.title,
        "max_clicks": link.max_clicks,
        "forward_query": link.forward_query,
    }
    changed = {name: item for name, item in value.items() if name not in as_it_is or item != as_it_is[name]}
    return check(LinkChange, changed, call.context.rules()).as_patch() if changed else None


def _is_same(given: datetime | None, now: datetime | None) -> bool:
    if given is None or now is None:
        return given is now
    return given.replace(microsecond=0) == now.replace(microsecond=0)


def _slug(fields: _Fields) -> str | None:
    """Returns the code that is asked for. Spaces and slashes become `-`, as in Shlink."""
    slug = fields.text("customSlug")
    return None if slug is None else re.sub(r"[\s/]+", "-", slug.strip())


class _Fields:
    """Reads fields of a body, which is JSON or a form: there all values are lists of strings."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def refuse_unknown(self, known: set[str]) -> None:
        """Raises Invalid for fields that mean something and are not known here."""
        strange = [name for name in self._values if name not in known and self._value(name)]
        if strange:
            made = "cannot be changed" if _ONLY_CREATED & set(strange) else "is not supported here"
            raise Invalid(fields=tuple(FieldError(f"/{name[:100]}", made) for name in strange[:20]))

    def refuse_crawlable(self) -> None:
        """Raises Invalid: /robots.txt names no single link."""
        if self.flag("crawlable"):
            raise invalid(
                "crawlable", "crawlers are told the same of all links, by the setting SNAPURL_ROBOTS"
            )

    def _value(self, name: str) -> object:
        """Returns the value, None if there is none; a Python client writes that as text."""
        value = self._values.get(name)
        if isinstance(value, tuple):
            value = value[-1] if name != "tags" else list(value)
        return None if value in ("", "None") else value

    def text(self, name: str) -> str | None:
        value = self._value(name)
        if value is not None and not isinstance(value, str):
            raise invalid(name, "must be a string")
        return value

    def title(self) -> str | None:
        """Returns the title. Shlink's may be longer: the rest is cut off."""
        title = self.text("title")
        return None if title is None else title[:TITLE_CHARS_MAX]

    def number(self, name: str) -> int | None:
        """Returns a number, which forms send as text."""
        value = self._value(name)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value, re.ASCII):
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise invalid(name, "must be a whole number")
        return value

    def flag(self, name: str) -> bool | None:
        value = self._value(name)
        if isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
        if value is not None and not isinstance(value, bool):
            raise invalid(name, "must be true or false")
        return value

    def date(self, name: str) -> datetime | None:
        text = self.text(name)
        return None if text is None else read_date(name, text)

    def iso(self, name: str) -> str | None:
        """Returns a date as the schema of a link takes it."""
        moment = self.date(name)
        return None if moment is None else moment.isoformat()

    def tags(self) -> list[str]:
        """Returns the tags, each once and without the spaces around it."""
        value = self._value("tags")
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
            raise invalid("tags", "must be an array of strings")
        return list(dict.fromkeys(stripped for tag in value if (stripped := tag.strip())))
