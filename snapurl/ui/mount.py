"""Adds the dashboard to the app of a worker."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from sanic import Sanic

from snapurl.config import Settings
from snapurl.ui.assets import Assets
from snapurl.ui.call import Dashboard
from snapurl.ui.guard import guard
from snapurl.ui.renderer import make_environment
from snapurl.ui.routes import SCREENS
from snapurl.ui.sessions import Sessions


def mount_dashboard(app: Sanic[Any, Any], settings: Settings) -> Dashboard | None:
    """Adds all screens. Returns what they share; None if SNAPURL_DASHBOARD is off."""
    if not settings.dashboard:
        return None
    assets = Assets()
    # `serve` and `up` give all their workers one secret. A worker that is started alone has its own.
    secret = settings.session_secret.get_secret_value() or secrets.token_urlsafe(32)
    templates = make_environment(assets.address, lambda: datetime.now(UTC))
    dashboard = Dashboard(assets, templates, Sessions(secret, time.time))
    for screen in SCREENS:
        path = screen.path.replace("{", "<").replace("}", ":str>")
        app.add_route(
            guard(screen, dashboard), path, screen.methods, name=screen.name, ignore_body=True, unquote=True
        )
    return dashboard
