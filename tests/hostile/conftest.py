"""Fixtures of attacks on the whole service."""

from __future__ import annotations

from tests.integration.http.conftest import make_service, shared_settings

__all__ = ["make_service", "shared_settings"]
