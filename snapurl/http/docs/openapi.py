"""OpenAPI 3.1 from the route table and the pydantic models: the one description of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from snapurl import errors
from snapurl.codes import CODE_CHARS_MAX
from snapurl.errors import (
    BadRequest,
    Gone,
    Invalid,
    MethodNotAllowed,
    NoSuchAddress,
    NotFound,
    NotYet,
    PasswordNeeded,
    PasswordWrong,
    RateLimited,
    RedirectLoop,
    SnapURLError,
    SwitchedOff,
    TooLarge,
    Unavailable,
)
from snapurl.http.docs.samples import ANSWERS, INVALID_WITHOUT_BODY, PROBLEMS, problem_samples
from snapurl.http.schema.imports import ImportedLink
from snapurl.http.schema.requests import ID_PATTERN
from snapurl.http.schema.responses import CONTENT_TYPE, TYPE_PREFIX, Preview, Problem
from snapurl.http.schema.route import Parameter, Route, Success
from snapurl.model import SourceKind

REF = "#/components/schemas/{model}"

CODE = {
    "name": "code",
    "in": "path",
    "required": True,
    "description": "The code of a link; case-sensitive.",
    "schema": {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}$"},
    "example": "spring-sale",
}
ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The id of a key or an account.",
    "schema": {"type": "string", "pattern": ID_PATTERN},
    "example": "7Fq2xWm0bZ",
}
KIND = {
    "name": "kind",
    "in": "path",
    "required": True,
    "description": "What is told of a click.",
    "schema": {"type": "string", "enum": list(SourceKind)},
    "example": "country",
}
SECURITY: list[dict[str, list[str]]] = [{"ApiKey": []}, {"Bearer": []}]
RETRY_AFTER = {"Retry-After": "Seconds to wait."}
RATE = {"RateLimit-Policy": "The rule.", "RateLimit": "What is left of it."}
EXTRA_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "How to authenticate."},
    405: {"Allow": "The methods there are."},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}


def document(
    routes: Sequence[Route[Any]],
    public_url: str,
    version: str,
    *,
    anonymous: bool,
    limits: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The whole document.

    `anonymous`: links may be created without a key here. `limits` are those of this deployment by what they limit.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, anonymous)
    paths["/{code}"] = {method: _redirect(method) for method in FOLLOW}
    paths["/{code}+"] = {"get": _preview()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SnapURL",
            "version": version,
            "description": _description(limits or {}),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url}],
        "tags": [
            {"name": name} for name in ("Links", "Redirects", "Keys", "Blocked hosts", "Cluster", "Pages")
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "Bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _description(limits: Mapping[str, object]) -> str:
    """Markdown: how to begin, how to authenticate, the limits, and every type of problem."""
    kinds = (
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, SnapURLError)
    )
    listed = sorted((kind.status, kind.slug, kind.title) for kind in kinds if kind is not errors.ConfigError)
    rows = "\n".join(f"| `{TYPE_PREFIX}{slug}` | {status} | {title} |" for status, slug, title in listed)
    return (
        "Short links, counted. Send your key as `X-Api-Key` or as `Authorization: Bearer`. HEAD works wherever GET "
        "does.\n\n"
        f"{_limits(limits)}"
        "Errors are RFC 9457 `application/problem+json`; their `type` is stable and one of these:\n\n"
        f"| type | status | title |\n|---|---|---|\n{rows}\n"
    )


def _limits(limits: Mapping[str, object]) -> str:
    rows = "\n".join(f"| {what} | {limit} |" for what, limit in limits.items())
    return f"| limit of this deployment | |\n|---|---|\n{rows}\n\n" if rows else ""


def _schemas(routes: Iterable[Route[Any]]) -> dict[str, Any]:
    # Bulk and Import name the models of their items only by reference; LinkDraft has a route of its own.
    asked: set[type[BaseModel]] = {ImportedLink, *(route.body for route in routes if route.body)}
    answered: set[type[BaseModel]] = {Preview, Problem}
    answered |= {good.model for route in routes for good in route.successes if good.model}
    models: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in asked]
    models += [(model, "serialization") for model in answered]
    models.sort(key=lambda item: item[0].__name__)
    _, schema = models_json_schema(models, ref_template=REF)
    found: dict[str, Any] = schema["$defs"]
    return found


def _operation(route: Route[Any], anonymous: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route.successes, route.refusals, has_body=route.body is not None),
    }
    if route.description:
        operation["description"] = route.description
    parameters = [item for item in (CODE, ID, KIND) if f"{{{item['name']}}}" in route.path]
    parameters += [_parameter(item) for item in route.parameters]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {media: {"schema": _ref(route.body)} for media in route.body_media}
        operation["requestBody"] = {"required": True, "content": content}
    if route.needs_client:
        optional = route.may_be_anonymous and anonymous
        operation["security"] = [*SECURITY, {}] if optional else SECURITY
    return operation


FOLLOW = {
    "get": "Follow a link",
    "head": "See where a link leads, without a click",
    "options": "See where a link leads, without a click",
    **dict.fromkeys(("post", "put", "patch", "delete"), "Follow a link that keeps the method (307, 308)"),
}


REDIRECT_STATUSES = {
    **dict.fromkeys(("get", "head", "options"), (301, 302, 307, 308)),
    "post": (303, 307, 308),
}
"""By method. After a password (POST) it is 303."""

NO_REDIRECT = (
    BadRequest,
    PasswordNeeded,
    PasswordWrong,
    RedirectLoop,
    NotFound,
    SwitchedOff,
    NotYet,
    NoSuchAddress,
    Gone,
    TooLarge,
    RateLimited,
    Unavailable,
)


def _redirect(method: str) -> dict[str, Any]:
    places = [
        Success(
            status, "To the link's URL", headers={"Location": "The link's URL.", "Cache-Control": "max-age=0"}
        )
        for status in REDIRECT_STATUSES.get(method, (307, 308))
    ]
    responses = _responses(places, NO_REDIRECT)
    if method == "head":
        for response in responses.values():
            response.pop("content", None)
    return {
        "operationId": "follow" if method == "get" else f"follow_{method}",
        "summary": FOLLOW[method],
        "tags": ["Redirects"],
        "parameters": [CODE],
        "responses": responses,
    }


def _preview() -> dict[str, Any]:
    shown = (
        Success(200, "Where the link leads", Preview),
        Success(200, "Where the link leads", media="text/html"),
    )
    return {
        "operationId": "preview",
        "summary": "Show where a link leads, without a click",
        "description": "A page for browsers. Nothing is there if this deployment has no previews.",
        "tags": ["Redirects"],
        "parameters": [CODE],
        "responses": _responses(shown, NO_REDIRECT),
    }


def _parameter(item: Parameter) -> dict[str, Any]:
    return {
        "name": item.name,
        "in": item.place,
        "required": item.is_required,
        "description": item.description,
        "schema": dict(item.schema),
    }


def _responses(
    good: Iterable[Success], refusals: Iterable[type[SnapURLError]], *, has_body: bool = False
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answer in good:
        response = responses.setdefault(str(answer.status), _good(answer))
        if answer.status == 200:
            response["content"] |= _good(answer)["content"]  # one status may have several media types
    by_status: dict[int, list[type[SnapURLError]]] = {}
    kinds: tuple[type[SnapURLError], ...] = (*refusals, MethodNotAllowed)
    for refusal in kinds:
        by_status.setdefault(refusal.status, []).append(refusal)
    for status, alike in sorted(by_status.items()):
        responses.setdefault(str(status), _problem(status, alike, has_body=has_body))
    return responses


def _good(answer: Success) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        response["headers"] = _headers(answer.headers)
    if answer.model is not None:
        content: dict[str, Any] = {"schema": _ref(answer.model)}
        if answer.model in ANSWERS:
            content["example"] = ANSWERS[answer.model]
        response["content"] = {answer.media: content}
    elif answer.status == 200:
        schema = {"type": "object"} if answer.media == "application/json" else {"type": "string"}
        response["content"] = {answer.media: {"schema": schema}}
    return response


def _problem(status: int, kinds: Sequence[type[SnapURLError]], *, has_body: bool) -> dict[str, Any]:
    explained = {kind: PROBLEMS[kind] for kind in kinds}
    if Invalid in explained and not has_body:
        explained[Invalid] = INVALID_WITHOUT_BODY
    lines = [f"`{TYPE_PREFIX}{kind.slug}`: {meaning}" for kind, (meaning, _) in explained.items()]
    response: dict[str, Any] = {
        "description": lines[0] if len(lines) == 1 else "".join(f"- {line}\n" for line in lines),
        "content": {CONTENT_TYPE: {"schema": _ref(Problem), "examples": problem_samples(explained)}},
    }
    if status in EXTRA_HEADERS:
        response["headers"] = _headers(EXTRA_HEADERS[status])
    return response


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
