"""The endpoints of Shlink's API, below /rest/v1 to v3, and which of them a path means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from sanic import HTTPResponse

from snapurl.errors import MethodNotAllowed, NoSuchAddress
from snapurl.http.shlink.call import Call, ShlinkHandler
from snapurl.http.shlink.groups import (
    delete_tags,
    edit_redirects,
    edit_tag,
    list_domains,
    list_tag_names,
    tag_stats,
)
from snapurl.http.shlink.links import (
    create_short_url,
    delete_short_url,
    edit_short_url,
    list_short_urls,
    shorten_by_get,
    show_short_url,
)
from snapurl.http.shlink.problems import ShlinkProblem
from snapurl.http.shlink.rules import show_rules, write_rules
from snapurl.http.shlink.visits import (
    all_visits,
    delete_orphan_visits,
    delete_visits,
    domain_visits,
    link_visits,
    orphan_visits,
    tag_visits,
    visits_overview,
)
from snapurl.model import Right

SHLINK_VERSION = "4.6.0"
"""What its clients show and ask for depends on this: filters that are here, and no conditions that are not."""

_VERSIONED = re.compile(r"v[123](/.+)")


async def report_health(call: Call) -> HTTPResponse:
    """Answers with any key, and without: the web client opens no server otherwise."""
    services = call.context.services
    ready = await services.readiness()
    is_down = ready.status == "down" or call.context.request.app.ctx.is_leaving
    own = services.settings.public_url
    return call.answer(
        {
            "status": "fail" if is_down else "pass",
            "version": f"{SHLINK_VERSION}+snapurl.{services.site.version}",
            "links": {"about": f"{own}/docs", "project": own},
        },
        503 if is_down else 200,
        "application/health+json",
    )


async def mercure_info(call: Call) -> HTTPResponse:
    raise ShlinkProblem(
        501, "mercure-not-configured", "Mercure integration not configured", "There are no live updates here."
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path. `right` is what the key must have; None: it needs no key.

    In the path, `{code}`, `{tag}` and `{domain}` are one or more segments.
    """

    method: str
    path: str
    handler: ShlinkHandler
    right: Right | None = Right.READ
    key_in_query: bool = False

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH")

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", self.path))


ENDPOINTS = (
    Endpoint("GET", "/health", report_health, None),
    Endpoint("GET", "/mercure-info", mercure_info, Right.READ),
    Endpoint("GET", "/short-urls", list_short_urls),
    Endpoint("POST", "/short-urls", create_short_url, Right.CREATE),
    Endpoint("GET", "/short-urls/shorten", shorten_by_get, Right.CREATE, key_in_query=True),
    Endpoint("GET", "/short-urls/{code}/visits", link_visits),
    Endpoint("DELETE", "/short-urls/{code}/visits", delete_visits, Right.CHANGE),
    Endpoint("GET", "/short-urls/{code}/redirect-rules", show_rules),
    Endpoint("POST", "/short-urls/{code}/redirect-rules", write_rules, Right.CHANGE),
    Endpoint("GET", "/short-urls/{code}", show_short_url),
    Endpoint("PATCH", "/short-urls/{code}", edit_short_url, Right.CHANGE),
    Endpoint("DELETE", "/short-urls/{code}", delete_short_url, Right.CHANGE),
    Endpoint("GET", "/tags", list_tag_names),
    Endpoint("PUT", "/tags", edit_tag, Right.CHANGE),
    Endpoint("DELETE", "/tags", delete_tags, Right.CHANGE),
    Endpoint("GET", "/tags/stats", tag_stats),
    Endpoint("GET", "/tags/{tag}/visits", tag_visits),
    Endpoint("GET", "/visits", visits_overview),
    Endpoint("GET", "/visits/non-orphan", all_visits),
    Endpoint("GET", "/visits/orphan", orphan_visits),
    Endpoint("DELETE", "/visits/orphan", delete_orphan_visits, Right.CHANGE),
    Endpoint("GET", "/domains", list_domains),
    Endpoint("PATCH", "/domains/redirects", edit_redirects, Right.CHANGE),
    Endpoint("GET", "/domains/{domain}/visits", domain_visits),
)
_PATTERNS = tuple((endpoint, endpoint.pattern) for endpoint in ENDPOINTS)

# Deprecated, and hidden behind the link with this code where a client does not use it.
_SHORTEN = next(endpoint for endpoint in ENDPOINTS if endpoint.handler is shorten_by_get)


@dataclass(frozen=True, slots=True)
class Target:
    """The endpoint that a request means, and the code or the name in its path."""

    endpoint: Endpoint
    code: str = ""
    name: str = ""


def find(method: str, rest: str, query: str) -> Target:
    """Returns what is meant by a path behind `/rest/`. Raises NoSuchAddress, MethodNotAllowed.

    Codes have no slash here. The web client writes `__` in a code as a slash, so that is what one means.
    """
    found = _paths(rest, query)
    if not found:
        raise NoSuchAddress("there is no such endpoint")
    for target in found:
        if target.endpoint.method == method or (method == "HEAD" and target.endpoint.method == "GET"):
            return target
    raise MethodNotAllowed(allow=", ".join(target.endpoint.method for target in found))


def methods_of(rest: str, query: str) -> str:
    """Returns the methods of a path, as in Allow."""
    return ", ".join(dict.fromkeys(target.endpoint.method for target in _paths(rest, query)))


def _paths(rest: str, query: str) -> list[Target]:
    """Returns the endpoints that have the path. Those of a longer pattern hide those of a shorter one."""
    path = "/" + "/".join(filter(None, rest.split("/")))
    if (match := _VERSIONED.fullmatch(path[1:])) is not None:
        path = match[1]
    elif path != "/health":
        return []
    found: list[Target] = []
    for endpoint, pattern in _PATTERNS:
        if endpoint is _SHORTEN and "longUrl=" not in query:
            continue
        if found and endpoint.path != found[0].endpoint.path:
            continue
        if (match := pattern.fullmatch(path)) is not None:
            groups = match.groupdict()
            code = unquote(groups.get("code", "").replace("/", "__"))
            found.append(Target(endpoint, code, unquote(groups.get("tag") or groups.get("domain") or "")))
    return found
