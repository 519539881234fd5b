"""Webhooks and their messages as values, and what a message says. Pure.

A message is one JSON object as Standard Webhooks has it: `type`, `timestamp` and `data`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from snapurl.codes import split_key
from snapurl.domains import Domains

SECRETS_OVERLAP = timedelta(days=1)  # after a rotation, for which the old secret signs, too
ALL_ACCOUNTS = ""


class Kind(StrEnum):
    """What a message tells of."""

    CREATED = "link.created"
    UPDATED = "link.updated"
    DISABLED = "link.disabled"
    DELETED = "link.deleted"
    RESTORED = "link.restored"
    EXPIRED = "link.expired"
    EXHAUSTED = "link.max_clicks_reached"
    CLICKS = "link.clicks"
    TEST = "webhook.test"


CHOICE = tuple(kind for kind in Kind if kind is not Kind.TEST)
"""The kinds that a webhook may be told of; a test is sent to every one."""

USUAL = tuple(kind for kind in CHOICE if kind is not Kind.CLICKS)
"""The kinds that a webhook is told of unless it is said which: what happens to a link, not each minute of
clicks."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told of changes of links: of `account`, or of ALL_ACCOUNTS.

    `secrets` are the newest and perhaps the one before. `disabled_why` is "" while it is enabled. `version` grows
    by one with every change.
    """

    webhook_id: str
    version: int
    account: str
    url: str
    kinds: tuple[str, ...]
    note: str
    secrets: tuple[str, ...] = field(repr=False)
    rotated_at: datetime | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None = None
    disabled_why: str = ""

    @property
    def is_enabled(self) -> bool:
        return self.disabled_at is None

    def signing_secrets(self, now: datetime) -> tuple[str, ...]:
        """Returns the secrets that sign now: for a day after a rotation the old one, too."""
        is_over = self.rotated_at is None or now - self.rotated_at >= SECRETS_OVERLAP
        return self.secrets[:1] if is_over else self.secrets


class MessageState(StrEnum):
    """What became of a message: it waits for its first or another attempt, was taken, or is given up."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one webhook. `code` is the key of the link that it tells of, "" for none.

    `status` is the HTTP status of the last answer, None if there was none; `answer` says what came of the last
    attempt.
    """

    slot: int
    message_id: str
    webhook_id: str
    code: str
    kind: str
    at: datetime
    data: Mapping[str, Any] = field(repr=False)
    state: MessageState
    attempts: int
    due_at: datetime
    tried_at: datetime | None
    status: int | None
    answer: str

    def body(self, domains: Domains) -> str:
        """Returns the JSON that is sent: the same in every attempt."""
        about = self.data
        if self.code:
            about = {"link": link_document(self.data, domains), **_clicks(self.data)}
        sent = {"type": self.kind, "timestamp": _moment(self.at), "data": about}
        return json.dumps(sent, ensure_ascii=False, separators=(",", ":"))


def link_document(row: Mapping[str, Any], domains: Domains) -> dict[str, Any]:
    """Returns a link as the API shows it, without its clicks, from the columns that the shard has kept of it.

    `is_cut`: note and rules are left out because they are very long.
    """
    domain, code = split_key(row["code"])
    kept = {name: value for name, value in row.items() if name not in ("code", "owner", "rules", *_CLICKS)}
    named = {
        "code": code,
        "domain": domain or None,
        "domain_is_configured": domains.has(domain),
        "short_url": domains.short_url(row["code"]),
        "account": row["owner"],
        **{
            name: _moment(datetime.fromisoformat(value))
            for name, value in kept.items()
            if value and name.endswith("_at")
        },
    }
    if "rules" in row:
        named["rules"] = json.loads(row["rules"]) if row["rules"] else None
    return kept | named


_CLICKS = ("new_clicks", "new_bots", "clicks_from_at")


def _clicks(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a message of Kind.CLICKS says besides the link."""
    if "new_clicks" not in row:
        return {}
    begin = datetime.fromisoformat(row["clicks_from_at"])
    return {
        "clicks": row["new_clicks"],
        "bots": row["new_bots"],
        "from": _moment(begin),
        "to": _moment(begin + timedelta(minutes=1)),
    }


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
