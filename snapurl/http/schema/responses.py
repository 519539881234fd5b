"""Response bodies: their schemas for OpenAPI, and the functions that build them. Pure.

The functions build plain dicts, because validation would cost more than building them. A test checks each function
against its schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ring.arcs import Arc
from snapurl.codes import split_key
from snapurl.domains import Domains
from snapurl.errors import SnapURLError
from snapurl.http.schema.requests import Conditions, RedirectStatus
from snapurl.model import Link, Readiness, RingView, SlotPlace

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:snapurl:problem:"
PARTIAL = "For admin keys: the shards that do not answer. Null for other keys."

REASONS = {
    "redis": "the shared cache does not work",
    "clicks": "clicks are counted late",
    "blocklist": "the list of blocked hosts cannot be read",
    "url_check": "the check of URLs does not work",
}
"""What a client is told of a fault, by the part that has it. Operators find the cause on the metrics port."""

MOMENTS_CACHED = 64  # in text form: the links of one bulk create share their time of creation


class Answer(BaseModel):
    # A worker only needs them for the OpenAPI document: they are built when somebody asks for that.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class FieldProblem(Answer):
    pointer: str = Field(
        description="RFC 6901 pointer into the body; `/query/…` and `/headers/…` point at those.",
        examples=["/expires_at"],
    )
    detail: str


class Problem(Answer):
    """RFC 9457 problem details."""

    type: str = Field(
        description="Stable name of the kind of problem.", examples=["urn:snapurl:problem:alias-taken"]
    )
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="What is wrong with which field.")
    request_id: str | None = Field(None, description="Quote it when you ask for help.")


class RuleBody(Answer):
    """Where the link leads those for whom the conditions hold."""

    conditions: Conditions = Field(alias="if")
    url: str = Field(json_schema_extra={"format": "uri"})


DOMAIN = Field(description="The domain of the link; null for that of the base URL.")


class LinkBody(Answer):
    """A link."""

    code: str
    domain: str | None = DOMAIN
    domain_is_configured: bool = Field(
        description="False: the service no longer has this domain, so the short URL does not lead to the link."
    )
    short_url: str = Field(json_schema_extra={"format": "uri"})
    url: str = Field(json_schema_extra={"format": "uri"})
    title: str | None
    tags: list[str]
    created_at: datetime
    expires_at: datetime | None
    redirect_status: RedirectStatus
    enabled: bool
    starts_at: datetime | None
    expired_url: str | None = Field(json_schema_extra={"format": "uri"})
    note: str | None
    forward_query: bool
    forward_path: bool
    max_clicks: int | None = Field(ge=1)
    has_password: bool
    rules: list[RuleBody] | None
    account: str = Field(
        description="Id of the account that it belongs to; empty if it was made without a key."
    )
    created_by: str = Field(
        description="The id of the API key that made it; empty if it was made without one."
    )
    changed_by: str | None = Field(
        description="The id of the API key that changed it last; null if it was never changed."
    )
    clicks: int = Field(ge=0, description="How many redirects were counted.")
    imported_clicks: int | None = Field(
        ge=0, description="How many the service counted that it was imported from; not part of `clicks`."
    )
    version: int = Field(ge=1, description="Grows by one with every change; send it as `If-Match`.")
    changed_at: datetime | None = Field(description="When it was last changed; null if it never was.")
    deleted_at: datetime | None
    renamed_to: str | None = Field(description="The code that it was renamed to; null if it was not.")


class LinkPage(Answer):
    """Links, in the order asked for."""

    links: list[LinkBody]
    next_cursor: str | None = Field(
        description="For the next page of the same query; null on the last one. A page of a search may have few "
        "links, or none, and still not be the last."
    )
    complete: bool = Field(
        description="False while some links cannot be reached: they are missing here. Ask for the page again later."
    )
    partial: list[str] | None = Field(description=PARTIAL)
    total: int | None = Field(
        ge=0, description="How many links the query has, if `total=true`. Null while that cannot be told."
    )
    total_is_estimate: bool | None = Field(
        description="Whether `total` is an estimate: it may be above 10,000."
    )


class BulkCreated(Answer):
    status: Literal[201]
    link: LinkBody


class BulkRefused(Answer):
    status: int = Field(ge=400, le=599)
    error: Problem


class BulkResults(Answer):
    """One result per link asked for, in the same order."""

    results: list[BulkCreated | BulkRefused]


class BatchChanged(Answer):
    code: str
    domain: str | None = DOMAIN
    status: Literal[200]
    link: LinkBody


class BatchRefused(Answer):
    code: str
    domain: str | None = DOMAIN
    status: int = Field(ge=400, le=599)
    error: Problem


class BatchResults(Answer):
    """One result per link: in the order of the codes, or by code if they were found by a filter."""

    results: list[BatchChanged | BatchRefused]
    total: int | None = Field(
        ge=0, description="How many links the filter had. Null with codes and with a cursor."
    )
    total_is_estimate: bool | None = Field(description="Whether `total` is an estimate.")
    next_cursor: str | None = Field(description="For the next links of the filter; null if none are left.")
    complete: bool = Field(
        description="False if some links of the filter cannot be reached: they were not changed."
    )


class TagLinks(Answer):
    tag: str
    links: int = Field(ge=1, description="Links that have it and are not deleted.")


class TagList(Answer):
    """Tags, those with the most links first."""

    tags: list[TagLinks]
    more: bool = Field(description="Whether there are other tags, beyond `limit`.")
    complete: bool = Field(description="False while some links cannot be reached: they are not counted.")


class TagProgress(Answer):
    """How far a change of a tag is: up to 1,000 links are changed per request. Repeat it until none are left."""

    changed: int = Field(ge=0, description="Links that this request changed.")
    refused: int = Field(ge=0, description="Links that it could not change.")
    left: int | None = Field(
        ge=0, description="Links that still have the tag; null while that cannot be told."
    )
    complete: bool = Field(description="False while some links cannot be reached: they were not changed.")


class Preview(Answer):
    """Where a link leads."""

    code: str
    domain: str | None = DOMAIN
    short_url: str = Field(json_schema_extra={"format": "uri"})
    url: str = Field(json_schema_extra={"format": "uri"})


class RingShard(Answer):
    name: str
    weight: float
    draining: bool
    slots: int = Field(description="Slots that it holds.")
    target_slots: int = Field(description="Slots that the ring gives it.")
    share: float = Field(ge=0, le=1, description="Part of all slots that it holds.")


class ReshardMove(Answer):
    what: str = Field(description="The first slot of the batch, and from which shard to which.")
    state: str = Field(description="The step that is under way.")
    age_s: float


class WritePauses(Answer):
    """For how long writes to slots were refused, of the newest moves."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Reshard(Answer):
    """What the migrator says of its work."""

    state: str = Field(description="idle, moving, paused, waiting, cleaning or standby.")
    age_s: float = Field(description="Seconds since it was last heard of; more than 5: none runs.")
    topology_version: int
    slots_total: int = Field(description="Slots to move when the present goal was set.")
    slots_left: int
    rows_copied: int
    rows_per_s: float
    eta_s: float | None
    moves: list[ReshardMove]
    pauses: WritePauses
    lag_rows: int = Field(description="Rows that changed while the batches under way were copied.")
    throttle: str = Field(description="What holds it back; empty if nothing does.")
    orphans: int = Field(description="Slots that were given away and whose rows are still there.")


class RingArc(Answer):
    """A run of slots, as long as all others of the answer."""

    first_slot: int
    owner: str | None = Field(
        description="The shard that holds the most of its slots; null if none is known."
    )
    owners: dict[str, int] = Field(description="How many of its slots each shard holds.")
    in_hand_off: int
    unknown: int = Field(description="Slots whose shard has not answered since this worker began.")
    misplaced: int = Field(description="Slots that another shard is to hold.")


class Place(Answer):
    slot: int
    shard: str = Field(description="The shard that has the slot.")
    target: str = Field(description="The shard that the ring gives it.")
    in_hand_off: bool


class Ring(Answer):
    """The topology and who holds the slots."""

    cluster_id: str
    topology_version: int
    virtual_nodes: int
    paused: bool = Field(description="Whether an operator has paused the moving of slots.")
    slots: int
    slots_in_hand_off: int
    slots_unknown: int = Field(description="Slots whose shard has not answered since this worker began.")
    shards: list[RingShard]
    reshard: Reshard | None = Field(description="At most a second old; null if no migrator has ever run.")
    place: Place | None = Field(description="Where `code` is; null if none was asked for.")
    arcs: list[RingArc] | None = Field(description="All slots in order; null unless `arcs` asks for them.")


class Live(Answer):
    status: Literal["ok"]


class Ready(Answer):
    """`degraded`: something is down and the rest works; `down`: no link can be reached."""

    status: Literal["ok", "degraded", "down"]
    reasons: list[str] = Field(description="What does not work; empty if all does.")
    cluster_id: str = Field(description="Tells deployments apart.")


class Home(Answer):
    name: Literal["SnapURL"]
    version: str


@lru_cache(maxsize=MOMENTS_CACHED)
def missing(silent: Sequence[str], is_admin: bool) -> dict[str, Any]:
    """Returns what an answer says of shards that do not answer. Only admins see their names."""
    return {"complete": not silent, "partial": list(silent) if is_admin else None}


def moment(value: datetime) -> str:
    """Returns a time as RFC 3339 in UTC, to the microsecond."""
    at = value if value.tzinfo is UTC else value.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def problem(refusal: SnapURLError, request_id: str | None = None) -> dict[str, Any]:
    """Returns the body of a problem response; `errors` is present only if fields are invalid."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + refusal.slug,
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.public_detail,
    }
    if refusal.fields:
        body["errors"] = [{"pointer": field.pointer, "detail": field.detail} for field in refusal.fields]
    if request_id is not None:
        body["request_id"] = request_id
    return body


def named(key: str) -> dict[str, Any]:
    """Returns the fields of an answer that say which link it is about."""
    domain, code = split_key(key)
    return {"code": code, "domain": domain or None}


def link_body(link: Link, domains: Domains) -> dict[str, Any]:
    """Returns a `LinkBody`."""
    domain, code = split_key(link.code)
    return {
        "code": code,
        "domain": domain or None,
        "domain_is_configured": domains.has(domain),
        "short_url": domains.short_url(link.code),
        "url": link.url,
        "title": link.title,
        "tags": list(link.tags),
        "created_at": moment(link.created_at),
        "expires_at": moment(link.expires_at) if link.expires_at else None,
        "redirect_status": link.redirect_status,
        "enabled": link.enabled,
        "starts_at": moment(link.starts_at) if link.starts_at else None,
        "expired_url": link.expired_url,
        "note": link.note,
        "forward_query": link.forward_query,
        "forward_path": link.forward_path,
        "max_clicks": link.max_clicks,
        "has_password": link.password_hash is not None,
        "rules": json.loads(link.rules) if link.rules else None,
        "account": link.owner,
        "created_by": link.created_by,
        "changed_by": link.changed_by,
        "clicks": link.clicks,
        "imported_clicks": link.imported_clicks,
        "version": link.version,
        "changed_at": moment(link.changed_at) if link.changed_at else None,
        "deleted_at": moment(link.deleted_at) if link.deleted_at else None,
        "renamed_to": link.renamed_to,
    }


def preview_body(key: str, url: str, domains: Domains) -> dict[str, Any]:
    """Returns a `Preview`."""
    return {**named(key), "short_url": domains.short_url(key), "url": url}


def ring_body(
    view: RingView,
    reshard: Mapping[str, Any] | None,
    place: SlotPlace | None = None,
    arcs: Sequence[Arc] | None = None,
) -> dict[str, Any]:
    """Returns a `Ring`. It leaves out the addresses of shards, which the migrator's last error may contain.

    The `reshard` of the answer is null if there is no document, or if a migrator of another version wrote it.
    """
    return {
        "cluster_id": view.cluster_id,
        "topology_version": view.topology_version,
        "virtual_nodes": view.virtual_nodes,
        "paused": view.paused,
        "slots": sum(shard.slots for shard in view.shards),
        "slots_in_hand_off": view.slots_in_hand_off,
        "slots_unknown": view.slots_unknown,
        "shards": [
            {
                "name": shard.name,
                "weight": shard.weight,
                "draining": shard.draining,
                "slots": shard.slots,
                "target_slots": shard.target_slots,
                "share": round(shard.share, 6),
            }
            for shard in view.shards
        ],
        "reshard": _reshard_body(reshard),
        "place": None if place is None else asdict(place),
        "arcs": None if arcs is None else [_arc_body(arc) for arc in arcs],
    }


def _arc_body(arc: Arc) -> dict[str, Any]:
    return {
        "first_slot": arc.first_slot,
        "owner": arc.owner,
        "owners": dict(arc.owners),
        "in_hand_off": arc.in_hand_off,
        "unknown": arc.unknown,
        "misplaced": arc.misplaced,
    }


def _reshard_body(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    try:
        return None if document is None else {name: document[name] for name in Reshard.model_fields}
    except KeyError:
        return None


def ready_body(found: Readiness) -> dict[str, Any]:
    """Returns a `Ready`, which names no part of the inside."""
    reasons = [REASONS[part] for part, fault in found.faults.items() if fault]
    if not all(shard.ok for shard in found.shards):
        reasons.insert(0, f"{'all' if found.status == 'down' else 'some'} links are temporarily unavailable")
    return {"status": found.status, "reasons": reasons, "cluster_id": found.cluster_id}


def ready_details(found: Readiness) -> dict[str, Any]:
    """Returns a readiness with names and causes, for the metrics port."""
    return {
        "status": found.status,
        "cluster_id": found.cluster_id,
        "shards": [{"name": shard.name, "ok": shard.ok, "detail": shard.detail} for shard in found.shards],
        **{part: {"ok": not fault, "detail": fault or "works"} for part, fault in found.faults.items()},
    }
