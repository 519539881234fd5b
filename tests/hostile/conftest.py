"""Fixtures of attacks on the whole service."""

from __future__ import annotations

from tests.integration.http.conftest import make_service

__all__ = ["make_service"]
