"""A whole service for one hostile client and a modest one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from snapurl.config import Settings
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import running


@pytest.fixture
def make_service(settings: Settings, tmp_path: Path) -> ServiceMaker:
    """Makes a service: `async with make_service(workers=2, SNAPURL_X="1")`."""
    return partial(running, settings, tmp_path)
