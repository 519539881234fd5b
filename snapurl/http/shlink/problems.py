"""Problems as Shlink's clients know them: their types, statuses and members, from the refusals of this service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snapurl.codes import split_key
from snapurl.errors import (
    AliasTaken,
    BadRequest,
    FieldError,
    Gone,
    Invalid,
    NoSuchAddress,
    NotFound,
    SnapURLError,
    Unauthorized,
)
from snapurl.http.schema.responses import TYPE_PREFIX

SHLINK_TYPES = "https://shlink.io/api/error/"

FIELDS = {
    "url": "longUrl",
    "alias": "customSlug",
    "starts_at": "validSince",
    "expires_at": "validUntil",
    "max_clicks": "maxVisits",
    "forward_query": "forwardQuery",
    "rules": "redirectRules",
}
"""What Shlink calls the fields of a link that have another name there."""


class ShlinkProblem(Exception):
    """A refusal that only this API has. `members` are those besides type, title, status and detail."""

    def __init__(self, status: int, slug: str, title: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.members = members


def invalid(name: str, detail: str) -> Invalid:
    """Returns the refusal of one field or parameter."""
    return Invalid(fields=(FieldError(f"/{name}", detail),))


def problem_of(refusal: SnapURLError | ShlinkProblem, key: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of a refusal. `key` is that of the link that is asked for, if one is."""
    if isinstance(refusal, ShlinkProblem):
        return refusal.status, _body(
            SHLINK_TYPES + refusal.slug, refusal.title, refusal.status, refusal.detail, refusal.members
        )
    for kind, make in _KINDS.items():
        if isinstance(refusal, kind):
            return make(refusal, key)
    return refusal.status, _body(
        TYPE_PREFIX + refusal.slug, refusal.title, refusal.status, refusal.public_detail, {}
    )


def _body(kind: str, title: str, status: int, detail: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "title": title, "detail": detail, "status": status, **members}


def _shlink(status: int, slug: str, title: str, detail: str, **members: Any) -> tuple[int, dict[str, Any]]:
    return status, _body(SHLINK_TYPES + slug, title, status, detail, members)


def _not_a_link(_: SnapURLError, key: str) -> tuple[int, dict[str, Any]]:
    members = _link(key, "shortCode")
    return _shlink(404, "short-url-not-found", "Short URL not found", "There is no such link.", **members)


def _taken(refusal: SnapURLError, key: str) -> tuple[int, dict[str, Any]]:
    members = _link(key, "customSlug")
    return _shlink(400, "non-unique-slug", "Invalid custom slug", refusal.public_detail, **members)


def _link(key: str, name: str) -> dict[str, str]:
    domain, code = split_key(key)
    return {name: code, **({"domain": domain} if domain else {})}


def _invalid(refusal: SnapURLError, _: str) -> tuple[int, dict[str, Any]]:
    """Clients show `invalidElements`, and fail without it."""
    found = [(_name(field.pointer), field.detail) for field in refusal.fields]
    detail = "; ".join(f"{name}: {detail}" for name, detail in found) or refusal.public_detail
    names = list(dict.fromkeys(name for name, _ in found))
    return _shlink(400, "invalid-data", "Invalid data", detail, invalidElements=names)


def _name(pointer: str) -> str:
    """Returns the name of the field to which a JSON pointer points, or within which."""
    parts = pointer.removeprefix("/query").removeprefix("/").split("/")
    return FIELDS.get(parts[0], parts[0])


def _malformed(refusal: SnapURLError, _: str) -> tuple[int, dict[str, Any]]:
    return _shlink(400, "malformed-request-body", "Malformed request body", refusal.public_detail)


def _no_route(refusal: SnapURLError, _: str) -> tuple[int, dict[str, Any]]:
    return _shlink(404, "not-found", "Not found", refusal.public_detail)


def _wrong_key(refusal: SnapURLError, _: str) -> tuple[int, dict[str, Any]]:
    return _shlink(401, "invalid-api-key", "Invalid API key", refusal.public_detail)


def missing_key(**members: Any) -> ShlinkProblem:
    """Returns the refusal of a request without a key. `members` say where it is expected."""
    return ShlinkProblem(
        401, "missing-authentication", "Invalid authorization", "Send your API key as X-Api-Key.", **members
    )


_KINDS: dict[type[SnapURLError], Callable[[SnapURLError, str], tuple[int, dict[str, Any]]]] = {
    NotFound: _not_a_link,
    Gone: _not_a_link,
    AliasTaken: _taken,
    Invalid: _invalid,
    BadRequest: _malformed,
    NoSuchAddress: _no_route,
    Unauthorized: _wrong_key,
}
