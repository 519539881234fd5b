"""The settings of this browser: the colours. They are in a cookie, so every page is right from its first byte."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import Invalid
from snapurl.ui.call import THEME_COOKIE, THEMES, Call

THEME_S_MAX = 31_536_000  # a year


async def show(call: Call) -> HTTPResponse:
    return call.page("preferences.html", themes=THEMES, is_saved="saved" in call.query)


async def save(call: Call) -> HTTPResponse:
    theme = call.form.get("theme", "")
    if theme not in THEMES:
        raise Invalid("the theme must be one of auto, light, dark")
    call.set_cookie(THEME_COOKIE, theme, THEME_S_MAX)
    return call.go("/ui/settings?saved=1")
