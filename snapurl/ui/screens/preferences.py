"""The settings of this browser: colours, time zone, keyboard shortcuts.

They are in cookies, so every page is right from its first byte.
"""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import Invalid, NoSuchAccount, Unavailable
from snapurl.ui.call import NO_SHORTCUTS, SHORTCUTS_COOKIE, THEME_COOKIE, THEMES, ZONE_COOKIE, Call
from snapurl.ui.forms import time_zones

KEPT_S_MAX = 31_536_000  # a year


async def show(call: Call) -> HTTPResponse:
    return call.page(
        "preferences.html",
        zones=sorted(time_zones()),
        is_saved="saved" in call.query,
        account=await _account_name(call),
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
    theme, zone = call.form.get("theme", ""), call.form.get("zone", "")
    if theme not in THEMES:
        raise Invalid("the theme must be one of auto, light, dark")
    if zone and zone not in time_zones():
        raise Invalid("this time zone is not known")
    call.set_cookie(THEME_COOKIE, theme, KEPT_S_MAX)
    call.set_cookie(ZONE_COOKIE, zone, KEPT_S_MAX)
    call.set_cookie(SHORTCUTS_COOKIE, "" if "shortcuts" in call.form else NO_SHORTCUTS, KEPT_S_MAX)
    return call.go("/ui/settings?saved=1")
