"""L1, the cache of links in a worker."""

from __future__ import annotations

import itertools
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapurl.cache.codec import decode, encode
from snapurl.cache.local import LocalCache
from snapurl.model import CachedLink

LINKS = 100_000
LINK = CachedLink("https://www.example.org/articles/2026/n0000000", 302, 1, None, deleted=False)


@pytest.fixture
def full() -> LocalCache:
    """A full cache."""
    cache = LocalCache(LINKS, 2**30, 60.0, 2.0, time.monotonic)
    cache.enable()
    for number in range(LINKS):
        cache.put(f"n{number:07d}", LINK, cache.generation)
    return cache


@pytest.mark.benchmark(group="cache look-up")
def test_hit(benchmark: BenchmarkFixture, full: LocalCache) -> None:
    """Finds a cached link among 100,000."""
    codes = itertools.cycle([f"n{number:07d}" for number in range(0, LINKS, 97)])
    assert benchmark(lambda: full.get(next(codes))) == LINK


@pytest.mark.benchmark(group="cache look-up")
def test_miss(benchmark: BenchmarkFixture, full: LocalCache) -> None:
    """Looks up a link that is not cached."""
    assert benchmark(full.get, "absent") is None


@pytest.mark.benchmark(group="cache filled")
def test_put_into_a_full_cache(benchmark: BenchmarkFixture, full: LocalCache) -> None:
    """Adds a link, which evicts another."""
    codes = (f"x{number}" for number in itertools.count())
    benchmark(lambda: full.put(next(codes), LINK, full.generation))
    assert len(full) == LINKS


@pytest.mark.benchmark(group="L2 text")
def test_decode(benchmark: BenchmarkFixture) -> None:
    """Decodes a link read from Redis."""
    assert benchmark(decode, encode(LINK)) == LINK
