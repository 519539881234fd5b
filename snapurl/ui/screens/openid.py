"""Login at an OpenID provider: sends the browser there, and takes it back."""

from __future__ import annotations

import hmac
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sanic import HTTPResponse

from snapurl.errors import BadRequest, NoAccess, NoSuchAddress, RateLimited, SnapURLError, Unavailable
from snapurl.http.dispatch import REFUSED_KEYS
from snapurl.http.problems import refusal_headers, report
from snapurl.http.rate_limits import count_refused_key, refuse_blocked
from snapurl.people import Person
from snapurl.ui.call import Call
from snapurl.ui.forms import sentence
from snapurl.ui.guard import place_or_home
from snapurl.ui.sessions import ATTEMPT_S_MAX, Attempt

if TYPE_CHECKING:
    from snapurl.ui.openid import OpenId

log = logging.getLogger("snapurl.ui")

COOKIE = "snapurl_login"
CODE_CHARS_MAX = 2_000
NOT_BEGUN = "this login was not begun in this browser, or more than a quarter of an hour ago"
DECLINED = "the login service has not logged you in"


async def begin(call: Call) -> HTTPResponse:
    """Sends the browser to the provider."""
    openid, place = _openid(call), place_or_home(call.query.get("next", "/ui"))
    try:
        url, attempt = await openid.begin(place)
    except Unavailable as refusal:
        return _refused(call, refusal, place)
    call.set_cookie(COOKIE, call.dashboard.sessions.attempt_cookie(attempt), ATTEMPT_S_MAX)
    return call.leave(url)


async def arrive(call: Call) -> HTTPResponse:
    """Logs in whoever comes back from the provider, if it confirms who they are."""
    openid = _openid(call)
    attempt = call.dashboard.sessions.read_attempt(call.cookie(COOKIE))
    call.set_cookie(COOKIE, "", 0)
    try:
        refuse_blocked(call.services.key_guessers.seconds_left(call.context.address), REFUSED_KEYS)
        person = await _person(call, openid, attempt)
    except (BadRequest, NoAccess, RateLimited, Unavailable) as refusal:
        return _refused(call, await _counted(call, refusal), attempt.place if attempt else "/ui")
    assert attempt is not None
    log.info(
        "%s is %r at %s and has logged in from %s",
        person.person_id, person.subject, person.issuer, call.context.address,
    )  # fmt: skip
    return call.go(attempt.place)


async def _person(call: Call, openid: OpenId, attempt: Attempt | None) -> Person:
    """Begins the session of whoever has logged in. Raises BadRequest, NoAccess, Unavailable."""
    given = call.query.get("state", "").encode()
    if attempt is None or not hmac.compare_digest(given, attempt.state.encode()):
        raise BadRequest(NOT_BEGUN)
    code = call.query.get("code", "")
    if "error" in call.query or call.query.get("iss", openid.issuer) != openid.issuer or not code:
        raise NoAccess(DECLINED, cause=repr(call.query.get("error"))[:100])
    if len(code) > CODE_CHARS_MAX:
        raise NoAccess(DECLINED, cause="code")
    person = await openid.finish(attempt, code)
    permit = await call.dashboard.identities.permit(person, call.services.accounts)
    # Only the group that counts is kept: a cookie is small.
    call.log_in(person.as_caller(permit), replace(person, groups=(permit.group,)))
    return person


async def _counted(call: Call, refusal: SnapURLError) -> SnapURLError:
    """Counts a refused login as a refused key is; returns the refusal."""
    if not isinstance(refusal, BadRequest | NoAccess):
        return refusal
    left_s = await count_refused_key(call.services, call.context.address)
    return RateLimited("too many logins were refused from here", retry_after_s=left_s) if left_s else refusal


def _refused(call: Call, refusal: SnapURLError, place: str) -> HTTPResponse:
    reported = report(call.context.request, refusal, call.context.request_id)
    call.context.headers |= refusal_headers(call.context.request, reported)
    log.info("refused a login from %s: %s (%s)", call.context.address, refusal.detail, refusal.cause)
    return call.page("login_failed.html", reported.status, fault=sentence(reported), place=place)


def _openid(call: Call) -> OpenId:
    if call.dashboard.openid is None:
        raise NoSuchAddress("nothing is at this address")
    return call.dashboard.openid
