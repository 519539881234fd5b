"""`snapurl login-link`: makes a link that logs a browser in once."""

from __future__ import annotations

import time

from snapurl.config import Settings
from snapurl.errors import ConfigError, NotFound
from snapurl.keys import PlainKey, list_keys
from snapurl.ui.sessions import Sessions


async def make_login_link(settings: Settings, key: str) -> str:
    """Returns a link that logs in with a key, given by its id or in full.

    Raises ConfigError if no worker could read the link or shows a dashboard, and NotFound.
    """
    if not settings.dashboard:
        raise ConfigError("the dashboard is off (SNAPURL_DASHBOARD)")
    if not settings.session_secret.get_secret_value():
        raise ConfigError(
            "SNAPURL_SESSION_SECRET is missing: set it to 32 random characters or more, here and for the workers, "
            "which otherwise could not read the link"
        )
    plain = PlainKey.parse(key)
    if plain is not None:
        return link_for(settings, plain.key_id, plain.secret_hash)
    listed, silent = await list_keys(settings)
    for found in listed:
        if found.key_id == key and found.revoked_at is None:
            return link_for(settings, found.key_id, found.secret_hash)
    missing = f"; these shards do not answer: {', '.join(silent)}" if silent else ""
    raise NotFound(f"there is no valid key with that id: `snapurl keys list` shows them{missing}")


def link_for(settings: Settings, key_id: str, secret_hash: bytes) -> str:
    """Returns a link that logs in with the key of that id and hash."""
    token = Sessions(settings.session_secret.get_secret_value(), time.time).login_token(key_id, secret_hash)
    return f"{settings.dashboard_url}/login/link?token={token}"
