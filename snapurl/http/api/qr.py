"""The handler of QR codes: which link, drawn how.

The service keeps no image: a client that has it sends its ETag, and gets 304 before anything is drawn.
"""

from __future__ import annotations

import re
from functools import partial

from sanic import HTTPResponse

from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error
from snapurl.qr import (
    BORDER_MAX,
    ERRORS,
    FORMATS,
    SIZE_PX_MAX,
    SIZE_PX_MIN,
    TRANSPARENT,
    DoesNotFit,
    Style,
    draw,
    identity,
    scan_url,
)

COLOUR = "[0-9A-Fa-f]{6}"


async def link_qr(call: RequestContext) -> HTTPResponse:
    style = _style(call)
    link = await call.services.links.get(call.code, owner_filter(call.caller))
    text = scan_url(call.services.domains.short_url(link.code))
    etag = f'"{identity(text, style)}"'
    headers = {**call.headers, "etag": etag, "cache-control": "private, no-cache"}
    if _is_known(call.request.headers.get("if-none-match", ""), etag):
        return HTTPResponse(None, 304, headers)
    try:
        image = await call.in_thread(partial(draw, text, style))
    except DoesNotFit as refusal:
        raise query_error("size", str(refusal)) from None
    return HTTPResponse(image, 200, headers, FORMATS[style.format])


def _style(call: RequestContext) -> Style:
    """Returns what the query asks for. Raises Invalid."""
    asked, usual = call.query, Style()
    dark = _colour(call, "dark", usual.dark)
    light = TRANSPARENT if asked.get("light") == TRANSPARENT else _colour(call, "light", usual.light)
    if dark == light:
        raise query_error("dark", "must differ from light")
    return Style(
        _choice(call, "format", tuple(FORMATS), usual.format),
        _number(call, "size", SIZE_PX_MIN, SIZE_PX_MAX, usual.size),
        _number(call, "border", 0, BORDER_MAX, usual.border),
        dark,
        light,
        _choice(call, "error", tuple(ERRORS), usual.error),
    )


def _choice(call: RequestContext, name: str, choices: tuple[str, ...], usual: str) -> str:
    value = call.query.get(name, usual)
    if value not in choices:
        raise query_error(name, f"must be one of {', '.join(choices)}")
    return value


def _number(call: RequestContext, name: str, least: int, most: int, usual: int) -> int:
    text = call.query.get(name, str(usual))
    if not re.fullmatch(r"[0-9]{1,5}", text) or not least <= int(text) <= most:
        raise query_error(name, f"must be a number from {least} to {most}")
    return int(text)


def _colour(call: RequestContext, name: str, usual: str) -> str:
    text = call.query.get(name, usual[1:])
    if not re.fullmatch(COLOUR, text):
        also = f", or {TRANSPARENT}" if name == "light" else ""
        raise query_error(name, f"must be a colour as six hexadecimal digits, such as 1d4ed8{also}")
    return f"#{text.lower()}"


def _is_known(if_none_match: str, etag: str) -> bool:
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in if_none_match.split(","))
