"""The values that pass between the layers, and what fields a link has. Pure: no SQL, no HTTP, no I/O.

`LinkFields` lists what a client may set of a link. Everything on the way of a create or a change follows from it:
the draft, the idempotency fingerprint, the arguments of the SQL functions, the columns that are read. How to add a
field: docs/develop/add-a-column.md.

Most values are frozen dataclasses. Those that are made thousands of times per second are structs of msgspec, which
are made in a fifth of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from operator import attrgetter
from typing import Any, Literal, NamedTuple
from uuid import UUID

from limits import parse as parse_rate
from msgspec import Struct
from msgspec.structs import fields

from snapurl.codes import split_key

# -- accounts and API keys ---------------------------------------------------------------------------------------

NAME_CHARS_MAX = 100


def is_limit(text: str) -> bool:
    """Whether `text` is a rate of the `limits` library, such as `60/minute`, or `none`."""
    if text == "none":
        return True
    try:
        parse_rate(text)
    except ValueError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether `text` can be the name of an account or a key."""
    return bool(text.strip()) and len(text) <= NAME_CHARS_MAX and text.isprintable()


@dataclass(frozen=True, slots=True)
class Account:
    """A team. Links belong to an account, and each of its keys reaches all of them.

    `created_by` is the id of the key that made it, "" for the command line.
    """

    account_id: str
    name: str
    created_at: datetime
    created_by: str


class Right(StrEnum):
    """What an API key may do with the links of its account; `ADMIN` includes the others and reaches every link."""

    CREATE = "create"
    READ = "read"
    CHANGE = "change"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the service knows it: never the secret, only its SHA-256.

    `limit` is a `limits` rate string ("600/minute"), "" for the service's default, "none" for no limit. `account`
    is the account that its links belong to; a key that is given none has one of its own, whose id is `key_id`.
    `created_by` is the id of the key that made it, "" for the command line. `used_at` is up to an hour behind.
    """

    key_id: str
    name: str
    secret_hash: bytes
    rights: frozenset[Right]
    limit: str
    created_at: datetime
    revoked_at: datetime | None
    account: str = ""
    created_by: str = ""
    used_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.account:
            object.__setattr__(self, "account", self.key_id)

    @property
    def has_own_account(self) -> bool:
        return self.account == self.key_id

    @property
    def is_admin(self) -> bool:
        return Right.ADMIN in self.rights


@dataclass(frozen=True, slots=True)
class RowKey:
    """Where a page of keys or accounts ends: the keyset (created_at, id), newest first."""

    created_at: datetime
    row_id: str


# -- links -------------------------------------------------------------------------------------------------------

TAGS_MAX = 20  # of a link


_SECRET_FIELDS = ("password", "password_hash")


class LinkFields(Struct):
    """What a client may set of a link: the columns of `links` that a create and a change write.

    The SQL functions take these fields in this order, so a new one comes last. It needs a default.
    """

    url: str
    title: str | None = None
    tags: tuple[str, ...] = ()
    redirect_status: int = 302
    expires_at: datetime | None = None
    enabled: bool = True
    starts_at: datetime | None = None
    expired_url: str | None = None
    note: str | None = None
    forward_query: bool = False
    forward_path: bool = False
    max_clicks: int | None = None
    password_hash: str | None = None
    rules: str | None = None

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _SECRET_FIELDS
        )
        return f"{type(self).__name__}({', '.join(shown)})"


LINK_FIELDS = tuple(each.name for each in fields(LinkFields))

link_values: Callable[[LinkFields], tuple[Any, ...]] = attrgetter(*LINK_FIELDS)
"""The values of LINK_FIELDS, in that order."""


class Draft(LinkFields, kw_only=True):
    """A link that a client asks for. Without an `alias` the service generates the code.

    It belongs to `account`, which an admin may name; None: to the account of the client's key. `password` is
    replaced by its hash before the link is stored. `domain` is None for the default domain.
    """

    alias: str | None = None
    account: str | None = None
    password: str | None = None
    domain: str | None = None

    def fingerprint(self) -> bytes:
        """Returns the SHA-256 of the request in canonical form: equal for requests that ask for the same.

        A field that was added after the first release counts only if it is not at its default. So the same body
        has the same fingerprint before and after an upgrade that adds a field.
        """
        values: list[Any] = [getattr(self, name) for name in _FIRST_FIELDS]
        for name, default in _LATER_FIELDS:
            if (value := getattr(self, name)) != default:
                values.append((name, value))
        if self.password is not None:
            values.append("password")
        return sha256(json.dumps(values, default=datetime.isoformat).encode()).digest()


_FIRST_FIELDS = ("url", "alias", "title", "tags", "redirect_status", "expires_at")
"""Those of the first release, in the order in which fingerprints hold them. Never to be changed."""


def _later_fields(kind: type[Draft]) -> tuple[tuple[str, object], ...]:
    """Returns the name and default of each field that is not one of the first.

    Of a secret a fingerprint holds only whether there is one: it is stored, and must not help anybody to guess.
    """
    names = {each.name: each.default for each in fields(kind)}
    return tuple(
        (name, default) for name, default in names.items() if name not in (*_FIRST_FIELDS, *_SECRET_FIELDS)
    )


_LATER_FIELDS = _later_fields(Draft)


class Origin(Struct, frozen=True, eq=False):
    """What a link brings along from another service: when it was made there, and its clicks there.

    A repeat of an import with the same `import_id` finds the link that the first one made.
    """

    import_id: UUID | None = None
    created_at: datetime | None = None
    clicks: int | None = None


NOT_IMPORTED = Origin()


class Imported(Struct):
    """The key under which an imported link is here. `is_new`: it was created, or would be."""

    code: str
    is_new: bool


class ImportedDay(NamedTuple):
    """What another service had counted for a link on a UTC day. `code` is its key, `bots` a part of `clicks`."""

    code: str
    day: date
    clicks: int
    bots: int


class NewLink(Struct):
    """A link to be created, under the key `code`. `token` identifies the create: a repeat finds its own row.

    `created_by` is the key_id of the API key that asks for it, "" if anonymous. `origin` is what an imported link
    brings along.
    """

    code: str
    fields: LinkFields
    owner: str
    token: UUID
    created_by: str = ""
    origin: Origin = NOT_IMPORTED


class Link(LinkFields, kw_only=True):
    """One row of `links`; `code` is its key. `version` starts at 1 and grows by one with every change.

    `owner` is the id of the account that it belongs to, "" if anonymous. A deleted link is a tombstone: it
    keeps its row, so that its code is never assigned again. `created_by` and `changed_by` are key_ids, "" for an
    anonymous client; `changed_by` is None if the link was never changed, and so is `changed_at`. `renamed_to` is
    the other code that the link was given, None if it has this one alone. `clicks` is no column: they are what was
    counted when the row was read. `imported_clicks` were counted where the link comes from, None if it comes from
    nowhere.
    """

    code: str
    created_at: datetime
    deleted_at: datetime | None
    owner: str
    version: int
    changed_at: datetime | None = None
    created_by: str = ""
    changed_by: str | None = None
    renamed_to: str | None = None
    imported_clicks: int | None = None
    clicks: int = 0

    @property
    def domain(self) -> str:
        """The domain, "" for the default one."""
        return split_key(self.code)[0]

    @property
    def short_code(self) -> str:
        """The code without the domain."""
        return split_key(self.code)[1]


LINK_COLUMNS = tuple(each.name for each in fields(Link) if each.name != "clicks")


@dataclass(frozen=True, slots=True, init=False)
class LinkPatch:
    """What a PATCH sets: values by name, of LINK_FIELDS. The other fields stay as they are.

    `password` stands for its hash until that is known.
    """

    values: Mapping[str, Any] = field(repr=False)

    def __init__(self, **values: Any) -> None:
        assert values.keys() <= {*LINK_FIELDS, "password"}, "a field that no PATCH sets"
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What else a redirect needs of a link that has more than a target, a status and an expiry."""

    enabled: bool = True
    starts_at_ms: int | None = None
    expired_url: str | None = None
    forward_query: bool = False
    forward_path: bool = False
    max_clicks: int | None = None
    password_hash: str | None = field(default=None, repr=False)
    rules: str | None = None

    @classmethod
    def of(cls, enabled: bool, starts_at: datetime | None, *others: Any) -> LinkOptions | None:
        """Returns the options that the OPTION_COLUMNS of `links` say; None if all are at their default."""
        options = cls(enabled, in_ms(starts_at), *others)
        return None if options == _NO_OPTIONS else options

    @property
    def chars(self) -> int:
        """The length of its texts, by which a cache estimates its memory."""
        return len(self.expired_url or "") + len(self.password_hash or "") + len(self.rules or "")


_NO_OPTIONS = LinkOptions()
OPTION_COLUMNS = (
    "enabled",
    "starts_at",
    "expired_url",
    "forward_query",
    "forward_path",
    "max_clicks",
    "password_hash",
    "rules",
)
_option_values = attrgetter(*OPTION_COLUMNS)


@dataclass(frozen=True, slots=True)
class CachedLink:
    """What a redirect needs of a link. Version 0 means that there is no such link.

    A link without `options` is plain: the fast path answers it, and Redis has it.
    """

    url: str
    redirect_status: int
    version: int
    expires_at_ms: int | None
    deleted: bool
    options: LinkOptions | None = None

    @property
    def is_missing(self) -> bool:
        return self.version == 0

    @classmethod
    def from_link(cls, link: Link) -> CachedLink:
        return cls(
            link.url,
            link.redirect_status,
            link.version,
            in_ms(link.expires_at),
            link.deleted_at is not None,
            LinkOptions.of(*_option_values(link)),
        )


MISSING = CachedLink("", 302, 0, None, deleted=False)
"""The shard that owns the slot has no such link."""


def in_ms(time: datetime | None) -> int | None:
    """Milliseconds since 1970."""
    return int(time.timestamp() * 1000) if time else None


@dataclass(frozen=True, slots=True)
class Taken:
    """The code belongs to another link; of an import also to the link itself, which an earlier run has made.

    Of an import, `url` is where the link leads, None if it is deleted.
    """

    code: str
    url: str | None = None
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """One item of a bulk call failed for now. `detail` may be shown to the client."""

    code: str
    detail: str
    outcome_known: bool


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An `Idempotency-Key` as a client sent it. `scope` names the client, so two clients may use the same key."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What is stored for an IdempotencyKey: the fingerprint of the first request, and the token of its create.

    The token also determines the generated code, so every repeat performs the same create.
    """

    token: UUID
    fingerprint: bytes


EXPIRY_NOT_IN_FUTURE = "must be in the future"
"""The detail of a refusal, wherever the expiry is checked."""


# -- lists of links ----------------------------------------------------------------------------------------------


class LinkState(StrEnum):
    """What a link is now: the last of these that it is, and LIVE if none of the others."""

    LIVE = "live"
    EXPIRED = "expired"
    SCHEDULED = "scheduled"
    DISABLED = "disabled"
    DELETED = "deleted"


class LinkOrder(StrEnum):
    """By what a list is sorted; the code decides between equal times and equal clicks.

    A link that never was changed counts as changed when it was created. Links without clicks are sorted by the
    time of their creation.
    """

    CREATED = "created"
    CHANGED = "changed"
    CODE = "code"
    CLICKS = "clicks"


@dataclass(frozen=True, slots=True)
class PageKey:
    """Where a page of links ends: the time by which the list is sorted there (else None), and the key.

    `clicks` is None unless the list is sorted by them; only where they are 0 there is a time, too.
    """

    at: datetime | None
    code: str
    clicks: int | None = None


@dataclass(frozen=True, slots=True)
class LinkQuery:
    """Which links a list has, and in which order. The default: all that are not deleted, newest first.

    A link must meet every condition. `owner` is the account whose links the caller may see (None: all), `account`
    the one that was asked for, `creator` the id of the key that made it, `domain` a domain, "" for the default one
    (None: all). `text` is a part of the code, the URL, the
    title or the note; A to Z match a to z. A range of times has its begin and not its end.
    """

    owner: str | None = None
    account: str | None = None
    creator: str | None = None
    domain: str | None = None
    text: str | None = None
    tags_any: tuple[str, ...] = ()
    tags_all: tuple[str, ...] = ()
    tags_none: tuple[str, ...] = ()
    state: LinkState | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    changed_from: datetime | None = None
    changed_to: datetime | None = None
    expires_from: datetime | None = None
    expires_to: datetime | None = None
    order: LinkOrder = LinkOrder.CREATED
    ascending: bool = False

    def key_of(self, link: Link) -> PageKey:
        """Returns the place of a link in the list."""
        match self.order:
            case LinkOrder.CREATED:
                return PageKey(link.created_at, link.code)
            case LinkOrder.CHANGED:
                return PageKey(link.changed_at or link.created_at, link.code)
            case LinkOrder.CODE:
                return PageKey(None, link.code)
            case LinkOrder.CLICKS:
                return PageKey(None if link.clicks else link.created_at, link.code, link.clicks)


@dataclass(frozen=True, slots=True)
class ListedLinks:
    """A page of a list. `after` is where the next one begins, None on the last.

    The links of the `silent` shards are missing. A search for text may end before the page is full.
    """

    links: list[Link]
    after: PageKey | None
    silent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag, and how many links have it that are not deleted."""

    tag: str
    links: int


@dataclass(frozen=True, slots=True)
class TagCounts:
    """Tags, those with the most links first. Links of the `silent` shards are not counted.

    `is_whole` says whether there are no other tags, and no count is too low because a shard has too many tags.
    """

    tags: list[TagCount]
    is_whole: bool
    silent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkCount:
    """How many links a list has."""

    links: int
    is_estimate: bool


# -- clicks ------------------------------------------------------------------------------------------------------


class SourceKind(StrEnum):
    """What is told of a click: each kind is counted for itself."""

    REFERRER = "referrer"  # host
    COUNTRY = "country"  # ISO 3166-1 alpha-2
    CITY = "city"
    DEVICE = "device"
    OS = "os"
    BROWSER = "browser"  # family
    LANGUAGE = "language"
    UTM_SOURCE = "utm_source"
    UTM_MEDIUM = "utm_medium"
    UTM_CAMPAIGN = "utm_campaign"
    CHANNEL = "channel"  # `link` or `qr`
    BOT = "bot"  # name


VALUES_MAX: Mapping[SourceKind, int] = {
    SourceKind.REFERRER: 100,
    SourceKind.COUNTRY: 250,
    SourceKind.CITY: 50,
    SourceKind.DEVICE: 6,
    SourceKind.OS: 20,
    SourceKind.BROWSER: 20,
    SourceKind.LANGUAGE: 30,
    SourceKind.UTM_SOURCE: 50,
    SourceKind.UTM_MEDIUM: 50,
    SourceKind.UTM_CAMPAIGN: 50,
    SourceKind.CHANNEL: 2,
    SourceKind.BOT: 30,
}
"""Values of a kind per link and day. Clicks of further values count under `*`, which is none of them."""


class SourceClicks(NamedTuple):
    """Clicks of one code from one source: a value of that kind, "" if unknown, "*" for all others."""

    kind: SourceKind
    value: str
    clicks: int


@dataclass(frozen=True, slots=True)
class Share:
    """A public link to the statistics of a link: whoever has the secret reads them.

    `made_by` is the id of a key.
    """

    secret: str
    made_at: datetime
    made_by: str


Sources = Mapping[SourceKind, Mapping[str, int]]
"""Kind -> value -> clicks. Of each kind they add up to the clicks, or to less where something is not known."""


@dataclass(slots=True)
class ClickRow:
    """Clicks of one code in one UTC hour in one stream entry. `entry` is the position of that entry.

    `bots` is a part of `clicks`; `values` is how many values `sources` has.
    """

    slot: int
    entry: int
    code: str
    day: date
    clicks: int
    sources: Sources = field(default_factory=dict)
    hour: int = 0
    bots: int = 0
    values: int = field(init=False)

    def __post_init__(self) -> None:
        self.values = sum(map(len, self.sources.values()))


ClicksBySlot = Mapping[int, Sequence[ClickRow]]
"""Slot -> its rows, in ascending order of entry."""


class Scope(StrEnum):
    """Of which links a group is. The key of ACCOUNT_TAG is `account/tag`."""

    DOMAIN = "domain"
    ACCOUNT = "account"
    TAG = "tag"
    ACCOUNT_TAG = "account_tag"


CLICKS_LATE_S = 60.0
"""From here on `/health/ready` says that clicks are late."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How late clicks are counted: `seconds` is the age of the oldest entry not counted yet, 0 if there is none."""

    seconds: float
    entries: int

    @property
    def is_late(self) -> bool:
        return self.seconds > CLICKS_LATE_S


# -- the cluster -------------------------------------------------------------------------------------------------

MIGRATOR_SILENT_S = 6.0
"""Without a heartbeat for this long no migrator runs: a second one would have taken over by then."""


@dataclass(frozen=True, slots=True)
class ShardHealth:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ShardState:
    """What a process knows of a shard without asking it.

    `fault` is why the shard serves nothing, "" if it serves. `silent_s` is the time since its last answer, None if
    the last call was answered or none ever was. `is_restarted` is whether its server has restarted and is not
    attested yet.
    """

    name: str
    fault: str
    silent_s: float | None
    is_restarted: bool


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """A changing command of an operator, from the audit log. `outcome` is "done", "published: topology 7", …"""

    at: datetime
    who: str
    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class OwnCounts:
    """Counts since the process began, read at `at_s` of the monotonic clock.

    `statements` maps a shard to (bound in s, how many statements took at most so long), ascending; the last bound
    is infinite. `errors` maps a shard to its failed calls, `lookups` a source to its look-ups of links.
    """

    at_s: float
    statements: Mapping[str, tuple[tuple[float, float], ...]]
    errors: Mapping[str, float]
    lookups: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can work. `faults` maps a part besides the shards to what is wrong with it, None if
    nothing is."""

    cluster_id: str
    shards: tuple[ShardHealth, ...]
    faults: Mapping[str, str | None]

    @property
    def status(self) -> Literal["ok", "degraded", "down"]:
        """`degraded`: something is down and the rest works; `down`: no shard answers."""
        up = sum(shard.ok for shard in self.shards)
        if not up:
            return "down"
        return "ok" if up == len(self.shards) and not any(self.faults.values()) else "degraded"


@dataclass(frozen=True, slots=True)
class ShardShare:
    """One shard's share of the slots, for `GET /api/v1/ring`: `slots` it holds, `target_slots` by the ring."""

    name: str
    weight: float
    draining: bool
    address: str
    slots: int
    target_slots: int
    share: float


@dataclass(frozen=True, slots=True)
class SlotPlace:
    """Which shard has a slot, as this process knows, and which one should have it."""

    slot: int
    shard: str
    target: str
    in_hand_off: bool


@dataclass(frozen=True, slots=True)
class RingView:
    cluster_id: str
    topology_version: int
    virtual_nodes: int
    paused: bool
    shards: tuple[ShardShare, ...]
    slots_in_hand_off: int
    slots_unknown: int
