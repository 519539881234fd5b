"""The preview of a link: `/{code}+` shows where it leads, without a click.

It shows the target only: title, tags and notes are for those who manage the link.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any
from urllib.parse import urlsplit

from sanic import HTTPResponse, Request

from snapurl.codes import split_key
from snapurl.domains import Domains
from snapurl.http.html import PAGE_HEADERS, page
from snapurl.http.problems import wants_page
from snapurl.http.response_headers import site_headers
from snapurl.http.schema.responses import preview_body

SIGN = "+"
"""Ends the address of a preview. No code has it."""


def preview(
    request: Request[Any, Any], key: str, url: str, domains: Domains, request_id: str
) -> HTTPResponse:
    """Returns where the link leads: a page for a browser, JSON for a program."""
    headers = {"x-request-id": request_id, "x-robots-tag": "noindex", **site_headers(varies=True)}
    if wants_page(request):
        return HTTPResponse(
            _page(split_key(key)[1], url), 200, {**headers, **PAGE_HEADERS}, "text/html; charset=utf-8"
        )
    body = json.dumps(preview_body(key, url, domains))
    return HTTPResponse(body, 200, headers, "application/json")


def _page(code: str, url: str) -> str:
    host = escape(urlsplit(url).netloc.rpartition("@")[2])
    return page(
        "Where this link leads",
        f"<main><h1>This link leads to {host}</h1>"
        f'<p class="target">{escape(url)}</p>'
        f'<p><a class="go" href="/{escape(code)}" rel="nofollow">Open it</a></p></main>',
    )
