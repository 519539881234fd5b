"""Disables the cyclic garbage collector during a search: it would traverse all worlds again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Disables the collector. No value of a search is part of a cycle."""
    gc.disable()
    yield
    gc.enable()
