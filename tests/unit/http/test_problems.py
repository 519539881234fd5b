"""Problems: every exception becomes a response with enough detail, but no internals."""

from __future__ import annotations

import pytest
from sanic import exceptions as sanic_errors

from snapurl import errors
from snapurl.errors import ConfigError, FieldError, Invalid, SnapURLError, Unavailable
from snapurl.http.html import refusal_page
from snapurl.http.problems import as_refusal, request_id_of
from snapurl.http.schema.responses import problem


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    """A problem always has type, title, status and detail, and lists fields only if some are invalid."""
    assert problem(Unavailable("shard db1 is silent"), "r-1") == {
        "type": "urn:snapurl:problem:unavailable",
        "title": "The service cannot answer this now",
        "status": 503,
        "detail": "temporarily unavailable: try again in a moment",
        "request_id": "r-1",
    }
    assert problem(Invalid(fields=(FieldError("/url", "is required"),)))["errors"] == [
        {"pointer": "/url", "detail": "is required"}
    ]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (sanic_errors.NotFound(), errors.NoSuchAddress),
        (sanic_errors.FileNotFound(), errors.NoSuchAddress),
        (sanic_errors.MethodNotAllowed("", "PUT", ("GET",)), errors.MethodNotAllowed),
        (sanic_errors.PayloadTooLarge(), errors.TooLarge),
        (sanic_errors.URITooLong(), errors.TooLarge),
        (sanic_errors.RequestTimeout(), errors.RequestTimeout),
        (sanic_errors.ServiceUnavailable(), errors.Unavailable),
        (sanic_errors.BadRequest(), errors.BadRequest),
        (sanic_errors.BadURL(), errors.BadRequest),
        (sanic_errors.ExpectationFailed(), errors.BadRequest),
        (sanic_errors.InvalidHeader("Accept"), errors.BadRequest),
        (sanic_errors.ServerError("secret"), SnapURLError),
        (RuntimeError("secret"), SnapURLError),
        (KeyError("secret"), SnapURLError),
    ],
)
def test_whatever_is_raised_becomes_one_of_ours(raised: BaseException, kind: type[SnapURLError]) -> None:
    """Sanic's exceptions are mapped; an unexpected exception reveals nothing."""
    refusal = as_refusal(raised)
    assert type(refusal) is kind
    assert "secret" not in str(problem(refusal))


def test_a_client_is_not_told_which_part_is_down() -> None:
    """What a shard or a wrong DSN says of itself is for operators; what a client can act on is for clients too."""
    for inside in (
        Unavailable("shard db2 is unreachable"),
        ConfigError("the DSN of shard db2 leads elsewhere"),
    ):
        refusal = as_refusal(inside)
        assert (refusal.status, str(refusal)) == (503, str(inside))
        assert "db2" not in str(problem(refusal)) + refusal_page(refusal)
    assert problem(Unavailable("too many wait", is_public=True))["detail"] == "too many wait"


def test_every_kind_of_problem_has_a_type_of_its_own() -> None:
    """Every kind of problem has a distinct type, so clients can rely on the type alone."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SnapURLError)
    ]
    assert len({kind.slug for kind in kinds}) == len(kinds)
    assert all(kind.title and 400 <= kind.status < 600 for kind in kinds)


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    """A proxy's request id is kept; one that could forge a log line is replaced."""
    assert request_id_of({"x-request-id": "Ab.9_-"}) == "Ab.9_-"
    for bad in ("", "x" * 65, "a b", "ä", 'a"b', "a\n"):
        made = request_id_of({"x-request-id": bad})
        assert made != bad and len(made) == 16
