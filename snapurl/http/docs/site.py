"""The handlers of everything that is not the API: start page, /docs, /openapi.json, robots.txt, the icon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cache

from sanic import HTTPResponse

from snapurl.config import Settings
from snapurl.http.context import Handler, RequestContext, Site
from snapurl.http.docs.openapi import document
from snapurl.http.docs.page import PAGE, POLICY, viewer_file
from snapurl.http.html import FAVICON, PAGE_HEADERS, ROBOTS, home_page
from snapurl.http.problems import wants_page
from snapurl.http.response_headers import Bodiless
from snapurl.http.schema.route import Route
from snapurl.telemetry.process import program_version

HTML = "text/html; charset=utf-8"
JAVASCRIPT = "text/javascript; charset=utf-8"
DAY_S = 86_400
REVALIDATED = {
    "cache-control": "no-cache"
}  # a cache may keep it, and asks each time whether it is still the same


def make_site(routes: Sequence[Route[Handler]], settings: Settings) -> Site:
    """The pages of a deployment."""
    version = program_version()
    fields = Settings.model_fields
    shown = [name for name in fields if name.startswith("limit_")] + ["bulk_links_max", "url_chars_max"]
    limits = {str(fields[name].description): getattr(settings, name) for name in shown}

    @cache
    def openapi() -> str:
        found = document(
            routes, settings.public_url, version, anonymous=settings.anonymous_creation, limits=limits
        )
        return json.dumps(found, ensure_ascii=False)

    return Site(version, openapi)


async def home(call: RequestContext) -> HTTPResponse:
    site = call.services.site
    call.headers |= {"vary": "Accept", **REVALIDATED}
    if wants_page(call.request):
        if call.services.settings.has_dashboard_at(call.request.headers.get("host", "")):
            return Bodiless(None, 303, {**call.headers, "location": "/ui"})
        return HTTPResponse(home_page(site.version), 200, {**call.headers, **PAGE_HEADERS}, HTML)
    call.headers["link"] = '</docs>; rel="service-doc", </openapi.json>; rel="service-desc"'
    return call.json_response({"name": "SnapURL", "version": site.version})


async def docs(call: RequestContext) -> HTTPResponse:
    headers = {**call.headers, **PAGE_HEADERS, **REVALIDATED, "content-security-policy": POLICY}
    return HTTPResponse(PAGE, 200, headers, HTML)


async def docs_start(call: RequestContext) -> HTTPResponse:
    return await _viewer_file(call, "start.js", JAVASCRIPT)


async def docs_script(call: RequestContext) -> HTTPResponse:
    return await _viewer_file(call, "swagger-ui-bundle.js", JAVASCRIPT)


async def docs_style(call: RequestContext) -> HTTPResponse:
    return await _viewer_file(call, "swagger-ui.css", "text/css; charset=utf-8")


async def _viewer_file(call: RequestContext, name: str, media: str) -> HTTPResponse:
    """A file of the viewer. Browsers keep it, and ask each time whether it is still the same."""
    compressed = "gzip" in call.request.headers.get("accept-encoding", "")
    file = await asyncio.to_thread(viewer_file, name, compressed=compressed)
    headers = {
        **call.headers,
        **REVALIDATED,
        "etag": file.etag,
        "vary": "Accept-Encoding",
    }
    if call.request.headers.get("if-none-match") == file.etag:
        return HTTPResponse(None, 304, headers)
    if compressed:
        headers["content-encoding"] = "gzip"
    return HTTPResponse(file.body, 200, headers, media)


async def openapi(call: RequestContext) -> HTTPResponse:
    text = await call.in_thread(call.services.site.openapi)
    return HTTPResponse(text, 200, call.headers | REVALIDATED, "application/json")


async def robots(call: RequestContext) -> HTTPResponse:
    text = ROBOTS[call.services.settings.robots]
    return HTTPResponse(text, 200, call.headers | REVALIDATED, "text/plain; charset=utf-8")


async def favicon(call: RequestContext) -> HTTPResponse:
    headers = {**call.headers, "cache-control": f"public, max-age={DAY_S}"}
    return HTTPResponse(FAVICON, 200, headers, "image/svg+xml")
