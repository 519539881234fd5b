"""The password of a link as a visitor sends it: a form, by POST to the link's address. Never in a URL or a log.

A right password opens the link for the one request that has it: there is no cookie, so that changing the password
ends everything. Only wrong ones count against the limits, per client and per link.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import parse_qs

from sanic import Request
from sanic.http import Http

from snapurl.errors import PasswordNeeded, RateLimited, TooLarge
from snapurl.http.context import Services

FORM_BYTES_MAX = 4_096
FORM_FIELDS_MAX = 5
FORM_MEDIA = "application/x-www-form-urlencoded"
LINK_FACTOR = 10  # wrong passwords of a link, as a multiple of SNAPURL_LIMIT_PASSWORD
PASSWORD = "password"  # noqa: S105 - the name of a field

_NEEDED = "send it by POST to this address, as the field `password` of a form"

log = logging.getLogger("snapurl.limits")


async def read_password(request: Request[Any, Any]) -> str:
    """Reads the password from the body of a request. Raises PasswordNeeded without one, TooLarge."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST" or media != FORM_MEDIA or request.stream is None:
        raise PasswordNeeded(_NEEDED)
    body = bytearray()
    async for chunk in cast(AsyncIterator[bytes], aiter(cast(Http, request.stream))):
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise TooLarge(f"the form may have at most {FORM_BYTES_MAX} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:  # not UTF-8, or too many fields
        raise PasswordNeeded(_NEEDED) from None
    if PASSWORD not in fields:
        raise PasswordNeeded(_NEEDED)
    return fields[PASSWORD][-1]


def refuse_guessers(services: Services, client: str, code: str) -> None:
    """Raises RateLimited if too many wrong passwords came from a client or for a link."""
    guessers = services.password_guessers
    if not guessers:
        return
    for name, where in ((client, "from here"), (_link(code), "for this link")):
        if left_s := guessers.seconds_left(name):
            raise RateLimited(f"too many wrong passwords were sent {where}", retry_after_s=left_s)


async def count_wrong(services: Services, client: str, code: str) -> None:
    """Counts a wrong password. Whoever is over the limit is blocked until the window ends."""
    rate = services.settings.limit_password
    for name, factor in ((client, 1), (_link(code), LINK_FACTOR)):
        verdict = await services.limiter.hit(PASSWORD, name, rate, factor=factor)
        if verdict is None or verdict.allowed:
            continue
        if services.password_guessers.block(verdict.client, verdict.reset_s):
            log.warning("blocked %s for %d s: its passwords are wrong", verdict.client, verdict.reset_s)


def _link(code: str) -> str:
    return f"link:{code}"
