"""Clicks: recorded by a redirect, encoded by the shipper, decoded by the consumer."""

from __future__ import annotations

import itertools
from datetime import date

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapurl.clicks.stream import FIELD, decode_entry, encode_entry
from snapurl.clicks.tally import Tally

DAY = date(2026, 1, 31)
COUNTS = {f"n{number:07d}": number % 9 + 1 for number in range(1000)}


@pytest.mark.benchmark(group="click recorded")
@pytest.mark.parametrize("links", [1, 10_000])
def test_record(benchmark: BenchmarkFixture, links: int) -> None:
    """Records one click, always on one link or on many links in turn."""
    tally = Tally(200_000)
    codes = itertools.cycle([f"n{number:07d}" for number in range(links)])
    benchmark(lambda: tally.record(next(codes)))
    assert tally.dropped == 0
    assert sum(tally.take().values()) >= 1


@pytest.mark.benchmark(group="1,000 codes' clicks")
def test_encode(benchmark: BenchmarkFixture) -> None:
    """Encodes what one flush sends to Redis."""
    assert benchmark(encode_entry, DAY, COUNTS)


@pytest.mark.benchmark(group="1,000 codes' clicks")
def test_decode(benchmark: BenchmarkFixture) -> None:
    """Decodes the same in the consumer, and computes the slot of each code."""
    fields = {FIELD: encode_entry(DAY, COUNTS).encode()}
    rows = benchmark(decode_entry, b"1700000000000-0", fields)
    assert sum(row.clicks for row in rows) == sum(COUNTS.values())
