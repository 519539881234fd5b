"""Clicks: recorded by a redirect, classified and encoded by the shipper, decoded by the consumer."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapurl.addresses import Clients
from snapurl.clicks.agent_libraries import load
from snapurl.clicks.agents import read_families
from snapurl.clicks.classifier import Classifier
from snapurl.clicks.counts import Counts, LeftOut
from snapurl.clicks.origins import Origins
from snapurl.clicks.stream import FIELD, decode_entry, encode_counts
from snapurl.clicks.tally import Tally

HOUR = datetime(2026, 1, 31, 12, tzinfo=UTC)
SAID = (
    b"utm_source=mail",
    b"https://www.example.com/a?b=c",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"de,en-US;q=0.7,en;q=0.3",
    None,
)
ROOM = 1_000_000
URL = b"https://www.example.org/articles/2026/n0000000"
COUNTS = {f"n{number:07d}": number % 9 + 1 for number in range(1000)}


@pytest.mark.benchmark(group="click recorded")
@pytest.mark.parametrize("links", [1, 10_000])
def test_record(benchmark: BenchmarkFixture, links: int) -> None:
    """Records one click, always on one link or on many links in turn."""
    tally = Tally(200_000)
    codes = itertools.cycle([f"n{number:07d}" for number in range(links)])
    benchmark(lambda: tally.record(next(codes), SAID, "192.0.2.1", URL))
    assert tally.dropped == 0
    assert sum(tally.take().values()) >= 1


@pytest.mark.benchmark(group="click classified")
@pytest.mark.parametrize("visitors", [1, 250])
def test_classify(benchmark: BenchmarkFixture, visitors: int) -> None:
    """Makes classes of one click whose user agent is known, and counts them: from one visitor, or from many."""
    classifier = Classifier(load() or read_families, Origins(Clients((), pytest.fail), "").read)
    counts = Counts(ROOM, ROOM, ROOM, LeftOut())
    addresses = itertools.cycle([f"192.0.2.{number}" for number in range(visitors)])
    benchmark(
        lambda: counts.add("a", 1, classifier.of(("a", SAID, next(addresses), URL), b"0123456789abcdef"))
    )
    assert len(counts.visitors["a"]) >= 1


@pytest.mark.benchmark(group="1,000 codes' clicks")
def test_encode(benchmark: BenchmarkFixture) -> None:
    """Encodes what one flush sends to Redis."""
    assert benchmark(encode_counts, HOUR, COUNTS)


@pytest.mark.benchmark(group="1,000 codes' clicks")
def test_decode(benchmark: BenchmarkFixture) -> None:
    """Decodes the same in the consumer, and computes the slot of each code."""
    fields = {FIELD: encode_counts(HOUR, COUNTS)}
    rows = benchmark(decode_entry, b"1700000000000-0", fields)
    assert sum(row.clicks for row in rows) == sum(COUNTS.values())
