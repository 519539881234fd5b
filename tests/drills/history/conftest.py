"""The store of the integration tests."""

from __future__ import annotations

from tests.integration.store.conftest import Store, direct, ready, store

__all__ = ["Store", "direct", "ready", "store"]
