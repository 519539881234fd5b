"""The deployment as moto makes it, once for each module: the root stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.cloud import Cloud, account, certificate, create

GIVEN = {"S3PrefixList": "pl-123abc", "BaseUrl": "https://s.example.org", "Version": "1.0"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An account in which the root stack was deployed; nothing is changed in it."""
    with account() as made:
        create("snapurl", "snapurl", Certificate=certificate(), **GIVEN)
        yield made
