"""The collector of cyclic garbage rests during a search: it would walk through all worlds again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """None of the values of a search is part of a cycle."""
    gc.disable()
    yield
    gc.enable()
