"""The settings of this browser: the colours. They are in a cookie, so every page is right from its first byte."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import Invalid, NoSuchAccount, Unavailable
from snapurl.ui.call import THEME_COOKIE, THEMES, Call

THEME_S_MAX = 31_536_000  # a year


async def show(call: Call) -> HTTPResponse:
    return call.page(
        "preferences.html", themes=THEMES, is_saved="saved" in call.query, account=await _account_name(call)
    )


async def _account_name(call: Call) -> str:
    """Returns the name of the account whose links are shared; "" if it is the key's own, or its shard is silent."""
    if call.user.has_own_account:
        return ""
    try:
        return (await call.services.accounts.get(call.user.account)).name
    except (NoSuchAccount, Unavailable):
        return ""


async def save(call: Call) -> HTTPResponse:
    theme = call.form.get("theme", "")
    if theme not in THEMES:
        raise Invalid("the theme must be one of auto, light, dark")
    call.set_cookie(THEME_COOKIE, theme, THEME_S_MAX)
    return call.go("/ui/settings?saved=1")
