"""What the handler of a screen receives, and how it answers: with a page, or by sending the browser elsewhere."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Environment
from sanic import HTTPResponse
from sanic.http import Http
from sanic.response import ResponseStream

from snapurl.addresses import Clients
from snapurl.errors import Unavailable
from snapurl.http.context import RequestContext, Services
from snapurl.http.event_streams import EventStreams, Source
from snapurl.http.problems import report
from snapurl.http.response_headers import Bodiless
from snapurl.model import ApiKey, Right
from snapurl.people import Person, is_person
from snapurl.ui.assets import Assets
from snapurl.ui.forms import form_number, is_form_number, time_zone
from snapurl.ui.identities import Identities
from snapurl.ui.renderer import times_in
from snapurl.ui.sessions import PERSON_S_MAX, SESSION_S_MAX, KeyClaim, Sessions

if TYPE_CHECKING:
    from snapurl.ui.openid import OpenId

COOKIE = "snapurl_session"
THEME_COOKIE = "snapurl_theme"
THEMES = ("auto", "light", "dark")
ZONE_COOKIE = "snapurl_zone"
SHORTCUTS_COOKIE = "snapurl_shortcuts"
NO_SHORTCUTS = "off"
FORWARDED_PROTO = "x-forwarded-proto"
HTML = "text/html; charset=utf-8"
DOWNLOADS_MAX = 8  # files that a worker makes while it sends them
DOWNLOAD_RETRY_S = 10.0
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # `no-referrer` would make browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What all screens of a process share. `openid` is None if people cannot log in at a provider."""

    assets: Assets
    templates: Environment
    sessions: Sessions
    identities: Identities
    openid: OpenId | None
    downloads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DOWNLOADS_MAX))


@dataclass(slots=True)
class Call:
    """One request to a screen. `path`, `query` and `form` are the parameters by name.

    `piece` is part of a file. `cookies` are those to set, complete. `key` is None where nobody has logged in.
    """

    context: RequestContext
    dashboard: Dashboard
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    piece: bytes = b""
    cookies: list[str] = field(default_factory=list)
    is_named_by_proxy: bool = False

    @property
    def services(self) -> Services:
        return self.context.services

    @property
    def key(self) -> ApiKey | None:
        return self.context.key

    @property
    def user(self) -> ApiKey:
        """Whoever has logged in, on a screen that requires it: an API key, or a person in the form of one."""
        return self.context.caller

    @property
    def is_person(self) -> bool:
        """Whether it is a person who has logged in, without a key."""
        return is_person(self.user)

    @property
    def is_partial(self) -> bool:
        """Whether htmx asks, to put a part of the page into the one that is open."""
        return "hx-request" in self.context.request.headers

    @property
    def once(self) -> str:
        """The number of the form that was sent, which it keeps, or one for a new form."""
        sent = self.form.get("once", "")
        return sent if is_form_number(sent) else form_number(self.services.clock(), secrets.token_hex(12))

    async def has_session(self) -> bool:
        """Whether there is somebody: of a session, or named by a proxy. Sets `key` and renews the cookie.

        Raises NoAccess for somebody who may do nothing, Unavailable.
        """
        request, identities = self.context.request, self.dashboard.identities
        session = self.dashboard.sessions.read_cookie(self.cookie(COOKIE))
        if session is not None:
            self.context.key = await identities.of_session(session, self.services)
            if self.context.key is None:
                self.log_out()
            elif session.is_due:
                self.log_in(self.context.key, session.who, session.began_s)
        if self.context.key is None:
            self.context.key = await identities.of_headers(request, self.services)
            self.is_named_by_proxy = self.context.key is not None
        return self.context.key is not None

    def cookie(self, name: str) -> str:
        """Returns the value of a cookie of the request, "" without it."""
        value: str | None = self.context.request.cookies.get(name)
        return value or ""

    @property
    def zone(self) -> tzinfo:
        """The time zone that was chosen in the settings, else UTC."""
        return time_zone(self.cookie(ZONE_COOKIE)) or UTC

    def may(self, right: Right) -> bool:
        """Whether the key of the session has a right."""
        return self.key is not None and (right in self.key.rights or self.key.is_admin)

    def page(self, template: str, status: int = 200, **values: Any) -> HTTPResponse:
        """Returns a page, with the values that every template may use."""
        theme = self.cookie(THEME_COOKIE)
        shared = {
            "call": self,
            "public_host": self.services.settings.public_url.partition("://")[2],
            "theme": theme if theme in THEMES else "auto",
            "has_shortcuts": self.cookie(SHORTCUTS_COOKIE) != NO_SHORTCUTS,
        }
        with times_in(self.zone):
            text = self.dashboard.templates.get_template(template).render(shared | values)
        return self._respond(HTTPResponse(text, status, self.context.headers | PAGE_HEADERS, HTML))

    def go(self, path: str) -> HTTPResponse:
        """Sends the browser to a path of the dashboard, to be read with GET."""
        assert path.startswith("/ui"), "leads out of the dashboard"
        header = "hx-redirect" if self.is_partial else "location"
        headers = self.context.headers | {header: path}
        return self._respond(Bodiless(None, 200 if self.is_partial else 303, headers))

    def leave(self, url: str) -> HTTPResponse:
        """Sends the browser to a URL of another site, which nobody but this service has chosen."""
        return self._respond(Bodiless(None, 303, self.context.headers | {"location": url}))

    def stream(self, source: Source, right: Right) -> HTTPResponse:
        """Responds with the events of `source`, as long as the key is valid and has the right.

        That of a person goes on until it ends by itself, and the browser asks for another. Raises Unavailable,
        RateLimited.
        """
        streams: EventStreams = self.context.request.app.ctx.event_streams
        context = self.context
        return streams.respond(
            context.request, context.address, context.headers, source, partial(self.still_may, right)
        )

    async def still_may(self, right: Right) -> bool:
        """Whether the key of the session is valid and has the right at this moment, as far as is known."""
        if self.is_person:
            return True
        try:
            key = await self.services.auth.find_by_id(self.user.key_id)
        except Unavailable:
            return True  # a page that is open is of most use while a shard is silent
        return key is not None and (right in key.rights or key.is_admin)

    def download(self, name: str, media: str, parts: AsyncIterator[str]) -> HTTPResponse:
        """Responds with a file of that name, which is made while it is sent.

        Where it cannot be finished the connection is cut, so that nobody takes a part of it for the whole. Raises
        Unavailable if too many files are being sent.
        """
        request, sending = self.context.request, self.dashboard.downloads
        if sending.locked():
            raise Unavailable("too many exports run now", is_public=True, retry_after_s=DOWNLOAD_RETRY_S)
        headers = {**self.context.headers, "content-disposition": f'attachment; filename="{name}"'}
        if request.method == "HEAD":
            return HTTPResponse(None, 200, headers, media)
        protocol = cast(Http, request.stream).protocol

        async def send(response: Any) -> None:
            try:
                async with sending:
                    async for part in parts:
                        await response.write(part)
            except BaseException as error:
                if protocol.transport is not None:
                    protocol.transport.abort()
                if not isinstance(error, Exception):
                    raise
                report(request, error, self.context.request_id)

        # It is sent by its own method, and has the status and the headers that callers look at.
        return cast(HTTPResponse, ResponseStream(send, 200, headers, media))

    def set_cookie(self, name: str, value: str, age_s: int) -> None:
        """Sets a cookie of the dashboard, which no script and no other site can read. Without a value it ends."""
        secure = "; Secure" if self._is_secure() else ""
        age_s = age_s if value else 0
        self.cookies.append(
            f"{name}={value}; Path=/ui; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}",
        )

    def log_in(self, caller: ApiKey, who: KeyClaim | Person, began_s: int | None = None) -> None:
        """Begins a session, or renews the one that began at `began_s` (Unix time)."""
        self.context.key = caller
        age_s = PERSON_S_MAX if isinstance(who, Person) else SESSION_S_MAX
        self.set_cookie(COOKIE, self.dashboard.sessions.cookie(who, began_s), age_s)

    def _is_secure(self) -> bool:
        """Whether the browser speaks TLS, as the public URL or a trusted proxy says."""
        request = self.context.request
        clients: Clients = request.app.ctx.clients
        if self.services.settings.dashboard_url.startswith("https:"):
            return True
        scheme = request.headers.get(FORWARDED_PROTO, "").partition(",")[0].strip().lower()
        return clients.is_proxy(request.ip) and scheme == "https"

    def log_out(self) -> None:
        self.context.key = None
        self.set_cookie(COOKIE, "", 0)

    def _respond(self, response: HTTPResponse) -> HTTPResponse:
        for cookie in self.cookies:
            response.headers.add("set-cookie", cookie)
        return response


ScreenHandler = Callable[[Call], Awaitable[HTTPResponse]]
