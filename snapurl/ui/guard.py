"""Makes the Sanic handler of a screen: session, origin of forms, limits, errors.

Every request asks the Authenticator for the key of its session, as one to the API does: a revoked key is out within
seconds, and limits are those of the key. What was typed is never lost: a screen with a form gets refusals
itself (`on_refusal`) and shows the form again. A session that has ended gets the login page, which carries the form
along.

Another site can make a browser send a form, with the session's cookie if SameSite should not hold. So a request
that changes anything must come from our own pages: by `Sec-Fetch-Site`, else by `Origin`, neither of which a page
can forge. No token is needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode

from sanic import HTTPResponse, Request

from snapurl.config import Settings
from snapurl.errors import (
    BadRequest,
    ForeignForm,
    NoAccess,
    NoSuchAddress,
    OutcomeUnknown,
    SnapURLError,
    Unauthorized,
    UnsupportedMediaType,
)
from snapurl.http.auth import require
from snapurl.http.bodies import BodyBound
from snapurl.http.context import RequestContext, Services
from snapurl.http.dispatch import SanicHandler, discard_body, read_bounded
from snapurl.http.problems import refusal_headers, refuse, report, request_id_of, traced
from snapurl.http.rate_limits import address_of, count_links, count_request
from snapurl.http.response_headers import site_headers
from snapurl.imports.pieces import PIECE_BYTES_MAX
from snapurl.model import Right
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS, timing
from snapurl.ui.call import Call, Dashboard, ScreenHandler
from snapurl.ui.forms import carried
from snapurl.ui.retries import NO_RETRY, retry_of

log = logging.getLogger("snapurl.ui")

FORM_MEDIA = "application/x-www-form-urlencoded"
FIELDS_MAX = 400  # of a form; that of a link has 20 rules of 13 fields each
QUERY_FIELDS_MAX = 20
QUERY_CHARS_MAX = 4_000
PLACE = re.compile(r"/ui(?:/[A-Za-z0-9_.~-]+)*(?:\?[A-Za-z0-9._~!$'()*+,;:@/?&=%-]*)?")
"""A path of the dashboard to go to after the login: never another site's."""

RefusalHandler = Callable[[Call, SnapURLError], Awaitable[HTTPResponse]]


@dataclass(frozen=True, slots=True)
class Screen:
    """One path and method of the dashboard.

    `right` is the right that the session's key must have; None: the screen needs no session, and its handler takes
    permits and counts by itself. `on_refusal` answers what the handler refuses; None: a page that says why. If it
    `takes_file`, a script sends it part of a file instead of a form, and gets JSON, also where it is refused.
    """

    method: str
    path: str
    handler: ScreenHandler
    right: Right | None = Right.READ
    on_refusal: RefusalHandler | None = None
    takes_file: bool = False

    @property
    def name(self) -> str:
        """The name of the route in Sanic."""
        return f"ui_{self.handler.__module__.rpartition('.')[2]}_{self.handler.__name__}"

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.method, "HEAD") if self.method == "GET" else (self.method,)


def guard(screen: Screen, dashboard: Dashboard) -> SanicHandler:
    """Makes the Sanic handler of a screen."""
    seconds = {status: timing(HTTP_SECONDS, screen.path, f"{status}xx") for status in range(2, 6)}

    async def handler(request: Request[Any, Any], **path: str) -> HTTPResponse:
        began_s, services = monotonic(), request.app.ctx.services
        context = RequestContext(request, services, request_id_of(request.headers), address_of(request))
        context.headers |= {"x-request-id": context.request_id, **site_headers()}
        REQUEST_ID.set(context.request_id)
        call = Call(context, dashboard, path)
        with traced(request, screen.path, context.request_id) as entered:
            try:
                response = await _respond(call, screen)
            except Exception as error:
                response = _refusal(call, screen, error)
            finally:
                request.app.ctx.body_budget.release(context.body_bytes)
            traces.set_status(entered, response.status)
        seconds[response.status // 100].observe(monotonic() - began_s)
        HTTP_REQUESTS.labels(screen.path, request.method, response.status).inc()
        return response

    handler.__name__ = screen.name
    return handler


async def _respond(call: Call, screen: Screen) -> HTTPResponse:
    request = call.context.request
    _check_host(call)
    if screen.method == "POST":
        if not is_from_our_pages(request, call.services):
            await discard_body(request)
            raise ForeignForm("another site has sent it: open the page here, and send the form from there")
        if screen.takes_file:
            call.piece = await _read_piece(call.context)
        else:
            call.form = await _read_form(call.context)
    else:
        await discard_body(request)
    call.query = _read_query(request)
    if screen.right is None:
        return await screen.handler(call)
    async with request.app.ctx.fair_queue.permit(call.context.address):
        if not await call.has_session():
            if screen.takes_file:
                raise Unauthorized("Your session has ended: log in, and go on")
            return _login_page(call, screen)
        _require(call, screen.right)  # whoever lacks the right is not shown the form again
        try:
            await _count(call, screen.right)
            return await screen.handler(call)
        except SnapURLError as refusal:
            if screen.on_refusal is None:
                raise
            reported = report(request, refusal, call.context.request_id)
            call.context.headers |= refusal_headers(request, reported)
            return await screen.on_refusal(call, reported)


def _require(call: Call, right: Right) -> None:
    """Raises Forbidden, or NoAccess if it is a person who lacks the right."""
    if call.is_person and not call.may(right):
        raise NoAccess(f"your groups lack the right to {right.value}")
    require(call.key, right)


def _check_host(call: Call) -> None:
    if not call.services.settings.has_dashboard_at(call.context.request.headers.get("host", "")):
        raise NoSuchAddress("nothing is at this address")


def is_from_our_pages(request: Request[Any, Any], services: Services) -> bool:
    """Whether a form was sent by a page of this service, or by the person at the browser."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    # Browsers leave Sec-Fetch-Site out on plain http, except to this very host.
    _, _, origin = request.headers.get("origin", "").partition("://")
    ours = (request.headers.get("host", ""), services.settings.dashboard_url.split("/")[2])
    return bool(origin) and origin.lower() in map(str.lower, ours)


async def _count(call: Call, right: Right) -> None:
    """Counts the request against the limits of the key. Raises RateLimited."""
    if right is Right.CREATE and call.context.request.method == "POST":
        await count_links(call.context, 1)
    else:
        await count_request(call.context, Right.READ)


async def _read_form(context: RequestContext) -> dict[str, str]:
    """Reads a form. Raises UnsupportedMediaType, TooLarge, BadRequest, Unavailable."""
    if context.request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_MEDIA:
        raise UnsupportedMediaType(f"send the form as {FORM_MEDIA}")
    context.bound = BodyBound.of(1, context.services.settings)
    raw = await read_bounded(context)
    try:
        return _fields(raw.decode(), FIELDS_MAX)
    except UnicodeDecodeError:
        raise BadRequest("the form is not UTF-8") from None


async def _read_piece(context: RequestContext) -> bytes:
    """Reads part of a file. Raises TooLarge, Unavailable."""
    settings = context.services.settings
    context.bound = replace(BodyBound.of(1, settings), bytes_max=piece_bytes_max(settings))
    return await read_bounded(context)


def piece_bytes_max(settings: Settings) -> int:
    """Returns how many bytes part of a file may have."""
    return min(PIECE_BYTES_MAX, settings.body_bytes_max)


def _read_query(request: Request[Any, Any]) -> dict[str, str]:
    text = request.query_string
    if len(text) > QUERY_CHARS_MAX:
        raise BadRequest(f"the query string may have at most {QUERY_CHARS_MAX} characters")
    return _fields(text, QUERY_FIELDS_MAX)


def _fields(text: str, fields_max: int) -> dict[str, str]:
    """Returns the fields of a query or form by name; of several with one name, the last. Raises BadRequest."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=fields_max, errors="strict")
    except ValueError:  # too many, or not UTF-8
        raise BadRequest("the form cannot be read") from None
    return dict(pairs)


def _login_page(call: Call, screen: Screen) -> HTTPResponse:
    """Sends a browser without a session to log in. It comes back, with the form that it has sent."""
    place = _place(call)
    if screen.method == "POST":
        return call.page("login.html", 401, place=place, form=carried(call.form), fault="", is_ended=True)
    return call.go(f"/ui/login?{urlencode({'next': place})}")


def _place(call: Call) -> str:
    """Returns the address that was asked for."""
    request = call.context.request
    return place_or_home(f"{request.path}?{request.query_string}" if request.query_string else request.path)


def place_or_home(text: str) -> str:
    """Returns a path of the dashboard as it is, and its start instead of anything else."""
    return text if PLACE.fullmatch(text) else "/ui"


def _refusal(call: Call, screen: Screen, error: Exception) -> HTTPResponse:
    if screen.takes_file:
        return refuse(call.context.request, error, call.context.request_id, call.context.headers)
    return _refusal_page(call, screen, error)


def _refusal_page(call: Call, screen: Screen, error: Exception) -> HTTPResponse:
    """Returns the page that says why there is no other. After a 503 it tries again, and has the form that was sent.

    By itself it sends no form again that may have changed something.
    """
    refusal = report(call.context.request, error, call.context.request_id)
    call.context.headers |= refusal_headers(call.context.request, refusal)
    is_form = screen.method == "POST"
    can_repeat = refusal.status == 503 and screen.right is not None
    return call.page(
        "refusal.html",
        refusal.status,
        refusal=refusal,
        here=_place(call) if can_repeat else "",
        form=carried(call.form) if is_form and can_repeat else None,
        retry=NO_RETRY if isinstance(refusal, OutcomeUnknown) else retry_of(refusal, call.form),
    )
