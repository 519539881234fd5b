"""What OpenAPI shows besides schemas: when each problem occurs, with a sample, and sample answers. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from pydantic import BaseModel

from snapurl import errors
from snapurl.domains import Domains
from snapurl.errors import FieldError, SnapURLError
from snapurl.http.schema import responses, statistics
from snapurl.http.schema.history import History
from snapurl.http.schema.imports import ImportResults, VisitResults
from snapurl.http.schema.responses import link_body, named, problem
from snapurl.model import Link, Share, SourceClicks, SourceKind
from snapurl.periods import DateRange, DayCounts, Report

REQUEST_ID = "7f4c1a90b2d3e856"

PROBLEMS: dict[type[SnapURLError], tuple[str, SnapURLError]] = {
    errors.BadRequest: (
        "The request cannot be read: the body is no JSON, or the head is malformed.",
        errors.BadRequest("the body names a field twice"),
    ),
    errors.Unauthorized: (
        "The API key is missing, unknown or revoked.",
        errors.Unauthorized("the API key is unknown or revoked"),
    ),
    errors.Forbidden: (
        "The API key lacks the right that this takes, or the link is another key's.",
        errors.Forbidden("this API key lacks the right to change"),
    ),
    errors.RedirectLoop: ("Following the link would never end.", errors.RedirectLoop()),
    errors.PasswordNeeded: (
        "The link has a password. Send it as the field `password` of a form, by POST to the same address.",
        errors.PasswordNeeded("send the password as a form"),
    ),
    errors.PasswordWrong: ("The password is not that of the link.", errors.PasswordWrong()),
    errors.NotFound: ("No link has this code.", errors.NotFound()),
    errors.SwitchedOff: ("The link was switched off (`enabled` is false).", errors.SwitchedOff()),
    errors.NotYet: (
        "The link begins to work later (`starts_at`).",
        errors.NotYet("the link begins to work later"),
    ),
    errors.NoSuchKey: ("No API key has this id.", errors.NoSuchKey()),
    errors.NoSuchAccount: ("No account has this id.", errors.NoSuchAccount()),
    errors.NoSuchAddress: ("Nothing is at this address.", errors.NoSuchAddress()),
    errors.MethodNotAllowed: ("The address exists, but not for this method.", errors.MethodNotAllowed()),
    errors.RequestTimeout: ("The request did not arrive in time.", errors.RequestTimeout()),
    errors.AliasTaken: (
        "Another link has this alias, or had it: the codes of deleted links are not given out again.",
        errors.AliasTaken("the alias spring-sale is taken"),
    ),
    errors.NameTaken: (
        "Another account has this name.",
        errors.NameTaken("the account acc_7Fq2xWm0bZ has this name"),
    ),
    errors.NoTitle: (
        "The target is no HTML page with a title that this deployment may fetch.",
        errors.NoTitle("the page has no title"),
    ),
    errors.Gone: ("The link was deleted, or it has expired.", errors.Gone("the link was deleted")),
    errors.VersionMismatch: (
        "The link no longer has the version in `If-Match`. Read it, and change it again.",
        errors.VersionMismatch("the link has version 4"),
    ),
    errors.TooLarge: (
        "The body or the head is larger than this deployment allows.",
        errors.TooLarge("a body may have at most 4194304 bytes"),
    ),
    errors.UnsupportedMediaType: (
        "The body is not JSON in UTF-8 by its `Content-Type`, or it is compressed.",
        errors.UnsupportedMediaType("send the body as application/json"),
    ),
    errors.Invalid: (
        "A field of the body, a query parameter or a header is unknown or has a value that is not allowed. "
        "`errors` points at each.",
        errors.Invalid(fields=(FieldError("/expires_at", "must be in the future"),)),
    ),
    errors.BlockedTarget: (
        "The link leads, or would lead, to a host that this deployment blocks, or to a URL that it refuses. "
        "`errors` points at each such target.",
        errors.BlockedTarget(fields=(FieldError("/url", "leads to a host that is blocked here"),)),
    ),
    errors.IdempotencyMismatch: (
        "Within 24 hours the `Idempotency-Key` was used with another body. Use a new one.",
        errors.IdempotencyMismatch(),
    ),
    errors.RateLimited: (
        "The client has used up its limit. `Retry-After` says when to try again.",
        errors.RateLimited("120 links in 60 s are allowed, and 0 are left"),
    ),
    errors.Unavailable: (
        "A part of the service that this takes does not answer now. Nothing was changed: try again.",
        errors.Unavailable("too many requests wait already"),
    ),
    errors.OutcomeUnknown: (
        "The reply to the change was lost, so that it may have happened. Read the link before you repeat it.",
        errors.OutcomeUnknown(),
    ),
}
"""When a problem occurs, and a sample of it."""

INVALID_WITHOUT_BODY = (
    "A query parameter or a header is unknown or has a value that is not allowed. `errors` points at each.",
    errors.Invalid(fields=(FieldError("/query/limit", "must be a number from 1 to 200"),)),
)

_LINK = link_body(
    Link(
        "https://example.org/a/long/page",
        title="Spring sale",
        tags=("sale", "2030"),
        code="spring-sale",
        created_at=datetime(2030, 1, 31, 12, tzinfo=UTC),
        deleted_at=None,
        owner="",
        version=1,
    ),
    Domains.of("https://s.example.org"),
)

_PERIOD = DateRange(date(2030, 1, 31), date(2030, 2, 1))
_DAYS = [DayCounts(date(2030, 1, 31), 2, 0, 2), DayCounts(date(2030, 2, 1), 1, 1, 0)]
REPORT = Report(
    _PERIOD.series(_DAYS),
    None,
    [
        SourceClicks(SourceKind.REFERRER, "news.example.com", 3),
        SourceClicks(SourceKind.BROWSER, "firefox", 2),
        SourceClicks(SourceKind.BROWSER, "chrome", 1),
    ],
    _DAYS,
)

ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    responses.LinkBody: _LINK,
    responses.LinkPage: {
        "links": [_LINK],
        "next_cursor": None,
        "complete": True,
        "partial": None,
        "total": 1,
        "total_is_estimate": False,
    },
    responses.BulkResults: {
        "results": [
            {"status": 201, "link": _LINK},
            {"status": 409, "error": problem(PROBLEMS[errors.AliasTaken][1])},
        ]
    },
    VisitResults: {
        "results": [
            {**named("spring-sale"), "status": 200},
            {"status": 404, "error": problem(errors.NotFound())},
        ]
    },
    ImportResults: {
        "results": [
            {**named("spring-sale"), "status": 201},
            {**named("summer-sale"), "status": 200},
            {"status": 409, "error": problem(errors.AliasTaken("the code leads elsewhere here"))},
        ],
        "places": None,
    },
    responses.BatchResults: {
        "results": [
            {**named("spring-sale"), "status": 200, "link": _LINK},
            {**named("summer-sale"), "status": 404, "error": problem(PROBLEMS[errors.NotFound][1])},
        ],
        "total": None,
        "total_is_estimate": None,
        "next_cursor": None,
        "complete": True,
    },
    responses.TagList: {"tags": [{"tag": "sale", "links": 12}], "more": False, "complete": True},
    responses.TagProgress: {"changed": 12, "refused": 0, "left": 0, "complete": True},
    History: {
        **named("spring-sale"),
        "changes": [
            {
                "version": 1,
                "kind": "create",
                "at": "2030-01-31T12:00:00.000000Z",
                "by": "7Fq2xWm0bZ",
                "fields": [],
            },
            {
                "version": 2,
                "kind": "change",
                "at": "2030-02-01T09:30:00.000000Z",
                "by": "7Fq2xWm0bZ",
                "fields": [{"name": "title", "old": "Sale", "new": "Spring sale"}],
            },
        ],
        "dropped": 0,
    },
    statistics.Stats: statistics.link_stats_body("spring-sale", REPORT),
    statistics.GroupStats: statistics.group_stats_body(REPORT, is_admin=True),
    statistics.KindStats: statistics.kind_stats_body(SourceKind.REFERRER, REPORT, is_admin=True),
    statistics.PublicStats: statistics.public_stats_body(
        "spring-sale",
        Share("k2bX9qWm0bZ7Fq1xR4tYuA", datetime(2030, 2, 1, 9, 30, tzinfo=UTC), "7Fq2xWm0bZ"),
        lambda key, secret: f"https://s.example.org/ui/shared/{key}/{secret}",
    ),
    responses.Live: {"status": "ok"},
    responses.Home: {"name": "SnapURL", "version": "0.1.0"},
}
"""Sample answers by model. OpenAPI viewers make up samples of the others from their schemas."""


def problem_samples(kinds: dict[type[SnapURLError], tuple[str, SnapURLError]]) -> dict[str, Any]:
    """Returns the samples of some kinds of problem as OpenAPI's `examples`, by slug."""
    return {
        kind.slug: {"summary": kind.title, "value": problem(sample, REQUEST_ID)}
        for kind, (_, sample) in kinds.items()
    }
