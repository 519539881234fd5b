"""The history of a link: who changed what, and when. Pure: no SQL, no HTTP.

The shard writes it, in the transaction of each change: `migrations/0018_link_history.sql`. It keeps the newest
CHANGES_MAX changes of a link, and of a text the first VALUE_CHARS_MAX characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from snapurl.model import Link

CHANGES_MAX = 100
VALUE_CHARS_MAX = 2_048


class ChangeKind(StrEnum):
    """What was done with a link."""

    CHANGE = "change"
    DELETE = "delete"
    RESTORE = "restore"
    TRANSFER = "transfer"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a link, which gave it `version`. `changed_by` is a key_id, "" for nobody.

    `fields` maps the name of each field that changed to its old and its new value, as JSON has them. Of a password
    the new value is "set", "changed" or "removed", the old one None.
    """

    version: int
    kind: ChangeKind
    changed_at: datetime
    changed_by: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class LinkHistory:
    """A link, and its newest changes, oldest first. Both are from one snapshot."""

    link: Link
    changes: list[Change]

    @property
    def dropped(self) -> int:
        """How many older changes are not kept."""
        return self.link.version - 1 - len(self.changes)


def changes_of(text: str | None) -> list[Change]:
    """Returns the changes that the statement `history` has found, as its JSON says them."""
    return [
        Change(
            version,
            ChangeKind(kind),
            datetime.fromisoformat(changed_at),
            changed_by,
            {name: (old, new) for name, (old, new) in fields.items()},
        )
        for version, kind, changed_at, changed_by, fields in json.loads(text or "[]")
    ]
