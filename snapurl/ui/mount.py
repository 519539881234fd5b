"""Adds the dashboard to the app of a worker."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sanic import Sanic

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.ui.assets import Assets
from snapurl.ui.call import Dashboard
from snapurl.ui.guard import guard
from snapurl.ui.identities import Identities
from snapurl.ui.renderer import make_environment
from snapurl.ui.routes import SCREENS
from snapurl.ui.sessions import Sessions

if TYPE_CHECKING:
    from snapurl.ui.openid import OpenId


def mount_dashboard(app: Sanic[Any, Any], settings: Settings) -> Dashboard | None:
    """Adds all screens. Returns what they share; None if SNAPURL_DASHBOARD is off."""
    if not settings.dashboard:
        return None
    assets = Assets()
    # `serve` and `up` give all their workers one secret. A worker that is started alone has its own.
    secret = settings.session_secret.get_secret_value() or secrets.token_urlsafe(32)
    templates = make_environment(assets.address, lambda: datetime.now(UTC))
    dashboard = Dashboard(
        assets, templates, Sessions(secret, time.time), Identities(settings), _provider(settings)
    )
    for screen in SCREENS:
        path = screen.path.replace("{", "<").replace("}", ":str>")
        app.add_route(
            guard(screen, dashboard), path, screen.methods, name=screen.name, ignore_body=True, unquote=True
        )
    return dashboard


def _provider(settings: Settings) -> OpenId | None:
    """Returns the OpenID provider; None if there is none. Raises ConfigError without the library for it."""
    if not settings.oidc_issuer:
        return None
    try:
        openid = import_module("snapurl.ui.openid")
    except ImportError:
        raise ConfigError(
            "SNAPURL_OIDC_ISSUER is set, but login by OpenID Connect needs an extra: pip install 'snapurl[oidc]'"
        ) from None
    provider: OpenId = openid.OpenId(settings, f"{settings.dashboard_url}/login/openid/return", time.time)
    return provider
