"""What the handler of a screen receives, and how it answers: with a page, or by sending the browser elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment
from sanic import HTTPResponse

from snapurl.http.context import RequestContext, Services
from snapurl.http.response_headers import Bodiless
from snapurl.model import ApiKey, Right
from snapurl.ui.assets import Assets
from snapurl.ui.forms import form_number, is_form_number
from snapurl.ui.sessions import SESSION_S_MAX, Sessions

COOKIE = "snapurl_session"
THEME_COOKIE = "snapurl_theme"
THEMES = ("auto", "light", "dark")
HTML = "text/html; charset=utf-8"
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
    """What all screens of a process share."""

    assets: Assets
    templates: Environment
    sessions: Sessions


@dataclass(slots=True)
class Call:
    """One request to a screen. `path`, `query` and `form` are the parameters by name.

    `cookies` are those to set, complete. `key` is None where there is no valid session.
    """

    context: RequestContext
    dashboard: Dashboard
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)

    @property
    def services(self) -> Services:
        return self.context.services

    @property
    def key(self) -> ApiKey | None:
        return self.context.key

    @property
    def user(self) -> ApiKey:
        """The key of the session, on a screen that requires one."""
        return self.context.caller

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
        """Whether there is a session of a key that is valid now. Sets `key` and renews the cookie.

        Raises Unavailable.
        """
        text = self.context.request.cookies.get(COOKIE)
        session = self.dashboard.sessions.read_cookie(text) if text else None
        if session is None:
            return False
        key = await self.services.auth.find_by_id(session.key_id)
        if key is None or not session.belongs_to(key):
            self.log_out()
            return False
        self.context.key = key
        if session.is_due:
            self.log_in(key, session.began_s)
        return True

    def may(self, right: Right) -> bool:
        """Whether the key of the session has a right."""
        return self.key is not None and (right in self.key.rights or self.key.is_admin)

    def page(self, template: str, status: int = 200, **values: Any) -> HTTPResponse:
        """Returns a page, with the values that every template may use."""
        theme = self.context.request.cookies.get(THEME_COOKIE, "auto")
        shared = {
            "call": self,
            "public_host": self.services.settings.public_url.partition("://")[2],
            "public_url": self.services.settings.public_url,
            "theme": theme if theme in THEMES else "auto",
        }
        text = self.dashboard.templates.get_template(template).render(shared | values)
        return self._respond(HTTPResponse(text, status, self.context.headers | PAGE_HEADERS, HTML))

    def go(self, path: str) -> HTTPResponse:
        """Sends the browser to a path of the dashboard, to be read with GET."""
        assert path.startswith("/ui"), "leads out of the dashboard"
        header = "hx-redirect" if self.is_partial else "location"
        headers = self.context.headers | {header: path}
        return self._respond(Bodiless(None, 200 if self.is_partial else 303, headers))

    def set_cookie(self, name: str, value: str, age_s: int) -> None:
        """Sets a cookie of the dashboard, which no script and no other site can read. Without a value it ends."""
        secure = "; Secure" if self.services.settings.dashboard_url.startswith("https:") else ""
        age_s = age_s if value else 0
        self.cookies.append(
            f"{name}={value}; Path=/ui; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}",
        )

    def log_in(self, key: ApiKey, began_s: int | None = None) -> None:
        """Begins a session of this key, or renews the one that began at `began_s` (Unix time)."""
        self.context.key = key
        self.set_cookie(COOKIE, self.dashboard.sessions.cookie(key, began_s), SESSION_S_MAX)

    def log_out(self) -> None:
        self.context.key = None
        self.set_cookie(COOKIE, "", 0)

    def _respond(self, response: HTTPResponse) -> HTTPResponse:
        for cookie in self.cookies:
            response.headers.add("set-cookie", cookie)
        return response


ScreenHandler = Callable[[Call], Awaitable[HTTPResponse]]
