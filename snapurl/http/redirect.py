"""Redirects on Sanic's path: those that `http/fastpath/protocol.py` does not answer, and all refusals.

A redirect has as little around it as possible: no middleware, no log line, no request id in the response. Its
headers come from `redirect_headers`; the fast path takes the same response as bytes from `redirect_bytes`. A test
compares the two.

All four statuses are sent with `max-age=0`. Browsers would otherwise cache a 301 or 308 for ever: its clicks would
not be counted, and changes of the link not seen.

Which methods a link takes follows from its status (RFC 9110, 15.4). After 307 and 308 a client repeats its request
with the same method and body, so such a link redirects every method. After 301 and 302 many clients turn a POST
into a GET without its body, so such a link takes safe methods only: a 405 is better than data that vanish.

`/{code}+` goes the same way, and ends in a page that shows where the link leads (`preview.py`): what is refused as
a redirect is refused as a preview, and counted alike.

A redirect becomes a click in one line per path: `services.tally.record` in `_respond` here, and
`self._record_click` in `FastPath._redirect`. HEAD and OPTIONS, which only look, are no clicks. Neither is a page
that a browser loads in advance: nobody has clicked yet, and maybe nobody will. Its redirect must not be kept, so
that the browser asks again, and is counted, when somebody clicks. A redirect to where a link leads once it has
expired is no click either.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from time import monotonic
from typing import Any

from sanic import HTTPResponse, Request
from sanic.models.server_types import ConnInfo

from snapurl.cache.reader import RELOADS_MAX
from snapurl.clicks.campaigns import campaign_part
from snapurl.clicks.sources import BOT, HEADER_BYTES_MAX, PURPOSE_HEADERS, browser_of, is_prefetch
from snapurl.codes import is_code, is_reserved
from snapurl.destination import Destination, destination, ended, has_address
from snapurl.errors import (
    BadRequest,
    Gone,
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
from snapurl.http.context import Services
from snapurl.http.password_form import count_wrong, read_password, refuse_guessers
from snapurl.http.preview import SIGN, preview
from snapurl.http.problems import refuse, request_id_of, traced
from snapurl.http.rate_limits import MISSES, address_of, count_miss, miss_client_of, refuse_blocked
from snapurl.http.response_headers import Bodiless
from snapurl.http.wire.said import last_header, said_of
from snapurl.model import CachedLink
from snapurl.rules import Visitor
from snapurl.store.batching.uses import Use
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import REDIRECT_SECONDS, REDIRECTS, timing
from snapurl.telemetry.traces import set_status
from snapurl.urls import Origin, UrlRefused, origin_of

CACHE_CONTROL = "private, max-age=0"
NOT_KEPT = "no-store"  # of a redirect that is no click

SAFE = ("GET", "HEAD", "OPTIONS")
KEEP_METHOD = (307, 308)  # statuses after which a client must not change the method
SEE_OTHER = 303  # after a password: the client must not send it to the target
METHODS = (*SAFE, "POST", "PUT", "PATCH", "DELETE")
_NO_CLICK = ("HEAD", "OPTIONS")
_PREVIEW_METHODS = ("GET", "HEAD")

_SANIC_SECONDS = timing(REDIRECT_SECONDS, "sanic")
REDIRECTED = REDIRECTS.labels("redirected")
_EXPIRED = REDIRECTS.labels("expired")  # redirected to where the link leads once it has expired
_PREVIEWED = REDIRECTS.labels("previewed")
_FAILED = REDIRECTS.labels("failed")
_REFUSED = {
    NotFound: REDIRECTS.labels("missing"),
    NoSuchAddress: REDIRECTS.labels("missing"),
    Gone: REDIRECTS.labels("gone"),
    SwitchedOff: REDIRECTS.labels("switched-off"),
    NotYet: REDIRECTS.labels("not-yet"),
    PasswordNeeded: REDIRECTS.labels("password"),
    PasswordWrong: REDIRECTS.labels("password"),
    BadRequest: REDIRECTS.labels("refused"),
    TooLarge: REDIRECTS.labels("refused"),
    RateLimited: REDIRECTS.labels("shut-out"),
    RedirectLoop: REDIRECTS.labels("loop"),
}


def redirect_headers(url: str) -> dict[str, str]:
    """Returns the headers of a redirect to `url`, in order."""
    return {"location": url, "cache-control": CACHE_CONTROL}


def redirect_bytes(url: str, status: int, date: str, *, keep_alive: bool) -> bytes:
    """Returns the complete response as sent; the same for GET and HEAD, since it has no body."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in redirect_headers(url).items()),
        f"date: {date}",
        "content-length: 0",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def redirect_frame(status: int, date: str) -> list[bytes]:
    """Returns what precedes and follows the URL in `redirect_bytes` on a keep-alive connection."""
    return redirect_bytes("\0", status, date, keep_alive=True).split(b"\0")


async def follow(request: Request[Any, Any], code: str) -> HTTPResponse:
    """Handles `/{code}` and `/{code}/…`. Raises MethodNotAllowed."""
    began_s = monotonic()
    request_id = request_id_of(request.headers)
    REQUEST_ID.set(request_id)  # replaces that of the connection's previous request
    with traced(request, "/{code}", request_id) as entered:
        response = await _respond(request, code, request_id)
        set_status(entered, response.status)
    _SANIC_SECONDS.observe(monotonic() - began_s)
    return response


async def _respond(request: Request[Any, Any], code: str, request_id: str) -> HTTPResponse:
    services: Services = request.app.ctx.services
    is_preview = services.settings.preview and code.endswith(SIGN)
    if is_preview and request.method not in _PREVIEW_METHODS:
        raise MethodNotAllowed(allow=", ".join(_PREVIEW_METHODS))
    code = code.removesuffix(SIGN) if is_preview else code
    key = services.domains.prefix_at(_host_of(request)) + code if services.domains.others else code
    try:
        status, leads = await _lead(request, services, code, key, is_preview=is_preview)
    except MethodNotAllowed:
        raise
    except SnapURLError as refusal:
        _REFUSED.get(type(refusal), _FAILED).inc()
        return refuse(request, refusal, request_id)
    if is_preview:
        _PREVIEWED.inc()
        return preview(request, key, leads.url, services.domains, request_id)
    headers = redirect_headers(leads.url)
    if _is_in_advance(request):
        headers["cache-control"] = NOT_KEPT
    elif leads.is_click and request.method not in _NO_CLICK:
        header = services.settings.geo_header
        countries = request.headers.getall(header, []) if header else []
        origin = request.app.ctx.origins.of_request(request.ip, address_of(request), countries)
        said = said_of(request, _behind_code(request.raw_url)[1])
        services.tally.record(key, said, origin, campaign_part(leads.url))
    (REDIRECTED if leads.is_click else _EXPIRED).inc()
    return Bodiless(None, status, headers)


async def _lead(
    request: Request[Any, Any], services: Services, code: str, key: str, *, is_preview: bool
) -> tuple[int, Destination]:
    """Returns the status and where the link leads this request, which has then used one up if they are counted.

    `code` is that of the path, `key` that of the link which it means at the host of the request.

    A preview uses none up, and a link with a password has none. Raises MethodNotAllowed, Unavailable if the link
    keeps changing, what `_find_link` and `_destination` raise, and for a link with a password PasswordNeeded,
    PasswordWrong, RateLimited.
    """
    rest, query = _behind_code(request.raw_url)
    password = None
    for _ in range(RELOADS_MAX):
        link = await _find_link(request, services, code, key, rest)
        leads = _destination(request, services, key, link, rest, query)
        status, options = link.redirect_status, link.options
        if options is None or options.password_hash is None or not leads.is_click:
            _check_method(request, status)
        elif is_preview:
            raise PasswordNeeded("the link has a password, so it has no preview", has_form=False)
        else:
            refuse_guessers(services, address_of(request), key)
            password = await read_password(request) if password is None else password
            if not await _is_current(request, services, key, link):
                continue
            if not await services.links.is_password(password, link):
                await count_wrong(services, address_of(request), key)
                raise PasswordWrong()
            status = SEE_OTHER
        if options is None or options.max_clicks is None or not leads.is_click:
            return status, leads
        async with request.app.ctx.fair_queue.permit(address_of(request)):
            takes = not is_preview and _is_by_a_person(request)
            use = await services.links.use(key, link.version, takes=takes)
        if use is Use.GIVEN:
            return status, leads
        if use is Use.SPENT:
            return status, _no_loop(request, services, ended(link, "the link is used up"))
        services.cache.forget(key, link.version)
    raise Unavailable("the link keeps changing", retry_after_s=1.0)


def _check_method(request: Request[Any, Any], status: int) -> None:
    """Raises MethodNotAllowed."""
    if request.method not in SAFE and status not in KEEP_METHOD:
        raise MethodNotAllowed(
            f"a link with status {status} takes no {request.method}: with 307 or 308 it would",
            allow=", ".join(SAFE),
        )


async def _is_current(request: Request[Any, Any], services: Services, key: str, link: CachedLink) -> bool:
    """Whether the shard has no newer version of the link: a password that was replaced opens nothing."""
    async with request.app.ctx.fair_queue.permit(address_of(request)):
        found = await services.links.find(key)
    if found.version != link.version:
        services.cache.forget(key, link.version)
        return False
    return True


def _is_by_a_person(request: Request[Any, Any]) -> bool:
    """Whether the request is a visit: it does not only look, and no browser or bot makes it before anybody
    clicks."""
    if request.method in _NO_CLICK or _is_in_advance(request):
        return False
    return browser_of(last_header(request, "user-agent")) != BOT


def hand_over(connection: ConnInfo, found: asyncio.Future[CachedLink]) -> None:
    """Passes the result of the fast path's look-up to the handler of the next request on this connection."""
    if not found.cancelled():
        connection.ctx.found = found


def _take_lookup(request: Request[Any, Any]) -> asyncio.Future[CachedLink] | None:
    """Returns the look-up that the fast path has done for this request (`hand_over`), if any."""
    connection = request.conn_info
    return None if connection is None else vars(connection.ctx).pop("found", None)


def _is_in_advance(request: Request[Any, Any]) -> bool:
    return is_prefetch(value for name in PURPOSE_HEADERS for value in request.headers.getall(name, ()))


def _host_of(request: Request[Any, Any]) -> str:
    """Returns the host that is asked, and its port; "" if the request has none.

    It is that of the header, unless the target is a whole URL (RFC 9112, 3.2.2).
    """
    target: bytes = request.raw_url
    if target.startswith(b"/"):
        return str(request.headers.get("host", ""))
    _, _, behind = target.partition(b"://")
    return re.split(rb"[/?#]", behind, maxsplit=1)[0].rpartition(b"@")[2].decode("latin-1")


def _behind_code(raw_url: bytes) -> tuple[bytes, bytes]:
    """Returns the path behind the code, and the query, as the client sent them."""
    path, _, query = raw_url.partition(b"#")[0].partition(b"?")
    if not path.startswith(b"/"):  # http://host/code/…
        path = path.partition(b"//")[2].partition(b"/")[2]
    return path.removeprefix(b"/").partition(b"/")[2], query


async def _find_link(
    request: Request[Any, Any], services: Services, code: str, key: str, rest: bytes
) -> CachedLink:
    """Finds the link of a code, by its key: in the fast path's look-up, in L1, or by loading it.

    A link that has no address with `rest` is as good as none. Concurrent requests for a link share one load
    (`LinkCache.resolve`). Raises NotFound, NoSuchAddress, RateLimited, Unavailable.
    """
    found = _take_lookup(request)
    if services.blocked:
        # Refuses existing and missing links alike: otherwise a blocked client could still tell them apart.
        refuse_blocked(services.blocked.seconds_left(miss_client_of(request)), MISSES)
    # What cannot be a code (/apple-touch-icon.png) is not counted as a miss: browsers ask for such files.
    if not is_code(code):
        raise NoSuchAddress() if rest else NotFound()
    link: CachedLink | None
    if found is not None:
        link = None if found.result().is_missing else found.result()
    elif services.cache.peek(key) is not None:
        link = await services.cache.resolve(key)
    else:
        async with request.app.ctx.fair_queue.permit(address_of(request)):
            link = await services.cache.resolve(key)
    if link is None or not has_address(link, rest):
        refuse_blocked(await count_miss(services, miss_client_of(request)), MISSES)
        request.ctx.is_counted = True
        raise NoSuchAddress() if rest or is_reserved(code) else NotFound()
    return link


def _destination(
    request: Request[Any, Any], services: Services, key: str, link: CachedLink, rest: bytes, query: bytes
) -> Destination:
    """Returns where the link leads this visitor now. Raises RedirectLoop, and what `destination` raises."""

    def visitor() -> Visitor:
        languages = ",".join(request.headers.getall("accept-language", ()))[:HEADER_BYTES_MAX]
        agent = last_header(request, "user-agent")
        return Visitor(key, address_of(request), agent, languages, query, services.clock())

    return _no_loop(request, services, destination(link, services.clock_ms(), rest, query, visitor))


def _no_loop(request: Request[Any, Any], services: Services, leads: Destination) -> Destination:
    if _is_loop(_host_of(request), leads.url, services.urls.own):
        raise RedirectLoop("the link leads back to this service, so following it would never end")
    return leads


def _is_loop(host: str, url: str, own: frozenset[Origin]) -> bool:
    """Whether following a link from `host` (and its port) leads to this service again.

    That the request has arrived shows that `host` is a name of the service, also if the settings do not have it. Of
    a host in the settings the port is known from there: a proxy may leave it out of the header.
    """
    try:
        target = origin_of(url)
        here = origin_of(f"http://{host}/")
    except UrlRefused:
        return False
    return target in own or (target == here and here[0] not in {name for name, _ in own})
