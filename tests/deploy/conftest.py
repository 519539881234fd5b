"""The root stack as created by moto, once per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.cloud import Cloud, account, certificate, create

GIVEN = {"S3PrefixList": "pl-123abc", "BaseUrl": "https://s.example.org", "Version": "1.0"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An account with the root stack deployed. Tests do not change it."""
    with account() as made:
        create("snapurl", "snapurl", Certificate=certificate(), **GIVEN)
        yield made
