"""The values that pass between the layers: no SQL, no HTTP, no I/O.

They are frozen, but for those that are made thousands of times per second: freezing takes longer than making.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class Right(StrEnum):
    """What an API key may do; `ADMIN` includes the others and reaches every link."""

    CREATE = "create"
    READ = "read"
    CHANGE = "change"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the service knows it: never the secret, only its SHA-256.

    `limit` is a `limits` rate string ("600/minute"), "" for the service's default, "none" for no limit.
    """

    key_id: str
    name: str
    secret_hash: bytes
    rights: frozenset[Right]
    limit: str
    created_at: datetime
    revoked_at: datetime | None

    @property
    def is_admin(self) -> bool:
        return Right.ADMIN in self.rights


@dataclass(slots=True)
class Link:
    """One row of `links`. `version` starts at 1 and grows by one with every change.

    `owner` is the key_id of the API key that made it, "" if anonymous. A deleted link is a tombstone: it
    keeps its row, so that its code is never given to anybody else.
    """

    code: str
    url: str
    title: str | None
    tags: tuple[str, ...]
    redirect_status: int
    created_at: datetime
    expires_at: datetime | None
    deleted_at: datetime | None
    owner: str
    version: int


@dataclass(frozen=True, slots=True)
class CachedLink:
    """As much of a link as a redirect needs. Version 0 says that there is no such link."""

    url: str
    redirect_status: int
    version: int
    expires_at_ms: int | None
    deleted: bool

    @property
    def is_missing(self) -> bool:
        return self.version == 0

    @classmethod
    def from_link(cls, link: Link) -> CachedLink:
        return cls(
            link.url, link.redirect_status, link.version, in_ms(link.expires_at), link.deleted_at is not None
        )


MISSING = CachedLink("", 302, 0, None, deleted=False)
"""There is no such link, says the shard that would own it."""


def in_ms(time: datetime | None) -> int | None:
    """Milliseconds since 1970."""
    return int(time.timestamp() * 1000) if time else None


@dataclass(slots=True)
class NewLink:
    """A link to be created. `token` names this attempt: a retry with the same token finds its own row."""

    code: str
    url: str
    title: str | None
    tags: tuple[str, ...]
    redirect_status: int
    expires_at: datetime | None
    owner: str
    token: UUID


@dataclass(frozen=True, slots=True)
class Taken:
    """The code belongs to another link."""

    code: str


@dataclass(frozen=True, slots=True)
class Failed:
    """One item of a bulk call could not be carried out now; `detail` may be shown to the client."""

    code: str
    detail: str
    outcome_known: bool


class Unset:
    """The type of `UNSET`: a field that a PATCH leaves as it is (None means: set to null)."""


UNSET = Unset()


@dataclass(frozen=True, slots=True)
class Change:
    """What a PATCH sets; fields that are UNSET stay."""

    url: str | Unset = UNSET
    title: str | Unset | None = UNSET
    tags: tuple[str, ...] | Unset = UNSET
    expires_at: datetime | Unset | None = UNSET
    redirect_status: int | Unset = UNSET


@dataclass(frozen=True, slots=True)
class Intent:
    """What an Idempotency-Key stands for: `nonce` fixes the code and token of the create it belongs to."""

    nonce: UUID
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class PageKey:
    """Where a page of links ends: the keyset (created_at, code), newest first."""

    created_at: datetime
    code: str


@dataclass(frozen=True, slots=True)
class DayClicks:
    day: date
    clicks: int


class SourceKind(StrEnum):
    """By what clicks are told apart."""

    BROWSER = "browser"
    REFERRER = "referrer"


class SourceClicks(NamedTuple):
    """Clicks of one code by what they came from: a host or a browser family, "" not told, "*" something else."""

    kind: SourceKind
    value: str
    clicks: int


@dataclass(slots=True)
class ClickRow:
    """Clicks of one code on one UTC day in one stream entry; `entry` is the entry's place in the stream.

    Of each kind the sources have as many clicks as the row, or fewer where some were not kept.
    """

    slot: int
    entry: int
    code: str
    day: date
    clicks: int
    sources: tuple[SourceClicks, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardHealth:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ShardShare:
    """One shard's part of the ring, for `GET /api/v1/ring`."""

    name: str
    weight: float
    draining: bool
    address: str
    slots: int
    target_slots: int
    share: float


@dataclass(frozen=True, slots=True)
class RingView:
    cluster_id: str
    topology_version: int
    virtual_nodes: int
    paused: bool
    shards: tuple[ShardShare, ...]
    slots_in_hand_off: int
    slots_unknown: int
