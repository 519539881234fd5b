"""The history of a link as its page lists it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from snapurl.history import ChangeKind, LinkHistory
from snapurl.ui.forms import LABELS

CHANGES_SHOWN = 10  # unless somebody asks for all
VALUE_CHARS_SHOWN = 200

KINDS = {
    ChangeKind.CHANGE: "Changed",
    ChangeKind.DELETE: "Deleted",
    ChangeKind.RESTORE: "Restored",
    ChangeKind.TRANSFER: "Given to another account",
    ChangeKind.RENAME: "Renamed",
}
_FIELDS = LABELS | {
    "redirect_status": "Status",
    "enabled": "Switched on",
    "owner": "Account",
    "renamed_to": "New code",
    "url": "Target",
}

Shown = str | datetime


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """What happened, when, and by whom: "" without a key. A field has its name, its old and its new value."""

    what: str
    at: datetime
    by: str
    fields: tuple[tuple[str, Shown, Shown], ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryView:
    """The newest lines, newest first. `more` is how many older ones could be shown, `dropped` how many are lost."""

    lines: Sequence[ChangeLine]
    more: int
    dropped: int


def history_view(found: LinkHistory, *, shows_all: bool) -> HistoryView:
    """Returns the lines of a history: the create is the oldest of them."""
    link = found.link
    lines = [ChangeLine("Created", link.created_at, link.created_by)]
    for change in found.changes:
        fields = (
            (_label(name), _shown(name, old), _shown(name, new)) for name, (old, new) in change.fields.items()
        )
        lines.append(
            ChangeLine(
                KINDS[change.kind], change.changed_at, change.changed_by, tuple(sorted(fields, key=_name))
            )
        )
    lines.reverse()
    shown = lines if shows_all else lines[:CHANGES_SHOWN]
    return HistoryView(shown, len(lines) - len(shown), found.dropped)


def _name(item: tuple[str, Shown, Shown]) -> str:
    return item[0]


def _label(name: str) -> str:
    return _FIELDS.get(name, name.replace("_", " ").capitalize())


def _shown(name: str, value: Any) -> Shown:
    """Returns a value for people; "" if there is none."""
    if value is None:
        return ""
    if name.endswith("_at"):
        return datetime.fromisoformat(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= VALUE_CHARS_SHOWN else f"{text[:VALUE_CHARS_SHOWN]}…"
