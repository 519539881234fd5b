"""Codes: random, derived from a token, checked."""

from __future__ import annotations

from uuid import UUID

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapurl.codes import derived_code, is_code, random_code

NONCE = UUID("5f1d6c1e-3b1c-4b52-9d0f-2f7c8a4b6e90")


@pytest.mark.benchmark(group="code generation")
def test_random_code(benchmark: BenchmarkFixture) -> None:
    """Generates seven unguessable characters."""
    assert is_code(benchmark(random_code))


@pytest.mark.benchmark(group="code generation")
def test_derived_code(benchmark: BenchmarkFixture) -> None:
    """Derives the code of a create with an Idempotency-Key."""
    assert is_code(benchmark(derived_code, NONCE, 0))


@pytest.mark.benchmark(group="code check")
def test_is_code(benchmark: BenchmarkFixture) -> None:
    """Checks whether a path is a valid code, as each redirect does."""
    assert benchmark(is_code, "n0012345")
