"""Which cluster a command works on: that of SNAPURL_SHARDS, or the local one."""

from __future__ import annotations

from snapurl.config import Settings, load_settings


def configured_settings() -> Settings:
    """Loads the settings. Raises ConfigError if they name no shards."""
    settings = load_settings()
    _ = settings.shard_dsns
    return settings


def settings_or_local(user: str = "") -> Settings:
    """As `configured_settings`, but without SNAPURL_SHARDS it logs in to the local cluster in SNAPURL_HOME.

    It does so as the service unless `user` names another login.
    """
    from snapurl.local.access import LocalUser
    from snapurl.local.state import running_settings

    settings = load_settings()
    if settings.shards.get_secret_value():
        return settings
    local = running_settings(settings.home, LocalUser(user or LocalUser.SERVICE))
    return load_settings(**local) if local else configured_settings()
