"""The response body with the history of a link: its schema, and the function that builds it. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from snapurl.history import CHANGES_MAX, VALUE_CHARS_MAX, Change, LinkHistory
from snapurl.http.schema.responses import DOMAIN, Answer, moment, named

_NAMES = {"owner": "account"}  # of columns whose fields in the API have another name


class ChangedField(Answer):
    name: str
    old: Any = Field(description="Null if there was none.")
    new: Any = Field(description="Null if there is none.")


class LinkChanged(Answer):
    version: int = Field(ge=1, description="That the link has since then.")
    kind: Literal["create", "change", "delete", "restore", "transfer", "rename"]
    at: datetime
    by: str = Field(description="The id of the API key; empty if it was done without one.")
    fields: list[ChangedField]


class History(Answer):
    """Who changed what of a link, and when. It begins with the create.

    Of a password it says `set`, `changed` or `removed`.
    """

    code: str
    domain: str | None = DOMAIN
    changes: list[LinkChanged] = Field(
        description=f"Oldest first: the create, then the newest {CHANGES_MAX} changes. A text of more than "
        f"{VALUE_CHARS_MAX:,} characters is cut and ends with `…`."
    )
    dropped: int = Field(ge=0, description="Older changes, which are not kept.")


def history_body(found: LinkHistory) -> dict[str, Any]:
    """Returns a `History`."""
    link = found.link
    created = {
        "version": 1,
        "kind": "create",
        "at": moment(link.created_at),
        "by": link.created_by,
        "fields": [],
    }
    return {
        **named(link.code),
        "changes": [created, *map(_change_body, found.changes)],
        "dropped": found.dropped,
    }


def _change_body(change: Change) -> dict[str, Any]:
    return {
        "version": change.version,
        "kind": change.kind,
        "at": moment(change.changed_at),
        "by": change.changed_by,
        "fields": [
            {"name": _NAMES.get(name, name), "old": _value(name, old), "new": _value(name, new)}
            for name, (old, new) in sorted(change.fields.items())
        ],
    }


def _value(name: str, value: Any) -> Any:
    """Returns a value as `LinkBody` has it. Rules are text, because they may be cut."""
    if name.endswith("_at") and value is not None:
        return moment(datetime.fromisoformat(value))
    return value
