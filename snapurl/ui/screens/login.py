"""Login with an API key or by a one-time link, and logout."""

from __future__ import annotations

import json
import logging

from sanic import HTTPResponse

from snapurl.errors import NotFound, RateLimited, SnapURLError, Unauthorized, Unavailable
from snapurl.http.auth import UNKNOWN
from snapurl.http.dispatch import authenticate
from snapurl.http.problems import refusal_headers, report
from snapurl.keys import PlainKey
from snapurl.people import Person
from snapurl.ui.call import COOKIE, Call
from snapurl.ui.forms import sentence
from snapurl.ui.guard import place_or_home
from snapurl.ui.sessions import LINK_S_MAX, KeyClaim

log = logging.getLogger("snapurl.ui")

LINK_ENDED = "this link has been used, or is older than five minutes: `snapurl login-link` makes another"
REDIS_SILENT = (
    "whether this link has been used cannot be told now, since Redis does not answer: log in with a key"
)


async def form(call: Call) -> HTTPResponse:
    place = place_or_home(call.query.get("next", "/ui"))
    return call.page("login.html", place=place, form={}, fault="", is_ended=False)


async def submit(call: Call) -> HTTPResponse:
    """Logs in with a key. A form that was sent without a session is shown to be sent again."""
    place = place_or_home(call.form.get("next", "/ui"))
    typed = _carried(call.form.get("form", ""))
    plain = PlainKey.parse(call.form.get("key", "").strip())
    try:
        key = await authenticate(call.context, lambda: _presented(plain))
        assert key is not None
    except (Unauthorized, RateLimited, Unavailable) as refusal:
        _report(call, refusal)
        fault = "This key is unknown or revoked." if isinstance(refusal, Unauthorized) else sentence(refusal)
        return call.page("login.html", refusal.status, place=place, form=typed, fault=fault, is_ended=False)
    call.log_in(key, KeyClaim.of(key))
    log.info("key %s has logged in from %s", key.key_id, call.context.address)
    return call.page("resume.html", place=place, form=typed) if typed else call.go(place)


def _report(call: Call, refusal: SnapURLError) -> None:
    """Counts and logs a login that is refused; its page says when to try again."""
    report(call.context.request, refusal, call.context.request_id)
    call.context.headers |= refusal_headers(call.context.request, refusal)
    log.info("refused a login from %s: %s", call.context.address, refusal.slug)


def _presented(plain: PlainKey | None) -> PlainKey:
    if plain is None:
        raise Unauthorized(UNKNOWN)
    return plain


def _carried(text: str) -> dict[str, str]:
    """Returns the form that the login page carries along; an empty one if it cannot be read."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


async def link(call: Call) -> HTTPResponse:
    """Shows a button: programs that preview links follow them, too, and must not use this one up."""
    return call.page("login_link.html", token=call.query.get("token", ""), fault="")


async def follow_link(call: Call) -> HTTPResponse:
    """Logs in by a link that has not been used yet."""
    token = call.dashboard.sessions.read_login_token(call.form.get("token", ""))
    try:
        if token is None:
            raise NotFound(LINK_ENDED)
        async with call.context.request.app.ctx.fair_queue.permit(call.context.address):
            key = await call.services.auth.find_by_id(token.key_id)
        if key is None or not token.belongs_to(key):
            raise NotFound(LINK_ENDED)
        try:
            is_first = await call.services.limiter.is_first(f"login-link:{token.number}", LINK_S_MAX)
        except Unavailable:
            raise Unavailable(REDIS_SILENT, is_public=True) from None
        if not is_first:
            raise NotFound(LINK_ENDED)
    except SnapURLError as refusal:
        _report(call, refusal)
        return call.page("login_link.html", refusal.status, token="", fault=sentence(refusal))
    call.log_in(key, KeyClaim.of(key))
    log.info("key %s has logged in by a link from %s", key.key_id, call.context.address)
    return call.go("/ui")


async def log_out(call: Call) -> HTTPResponse:
    """Ends the session here. Whoever has logged in at a provider can end that session, too."""
    session = call.dashboard.sessions.read_cookie(call.cookie(COOKIE))
    openid = call.dashboard.openid
    call.log_out()
    if session is None or openid is None or not isinstance(session.who, Person):
        return call.go("/ui/login")
    back = f"{call.services.settings.dashboard_url}/login"
    return call.page("logged_out.html", end_url=openid.end_url(back), issuer=openid.host)
