"""What this process has counted so far: statements and errors by shard, look-ups of links by source.

The numbers are of one process, also where several share their metrics: reading them takes no lock and no file.
"""

from __future__ import annotations

from time import monotonic

from prometheus_client import Counter

from snapurl.model import OwnCounts
from snapurl.telemetry.metrics import CACHE_ANSWERS, SHARD_ERRORS, STATEMENT_SECONDS, flush_timings


def read_own_counts() -> OwnCounts:
    """Reads the counts of this process."""
    flush_timings()
    statements: dict[str, list[tuple[float, float]]] = {}
    for metric in STATEMENT_SECONDS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                statements.setdefault(sample.labels["shard"], []).append((bound, sample.value))
    return OwnCounts(
        monotonic(),
        {shard: tuple(sorted(buckets)) for shard, buckets in statements.items()},
        _sums(SHARD_ERRORS, "shard"),
        _sums(CACHE_ANSWERS, "level"),
    )


def _sums(counter: Counter, label: str) -> dict[str, float]:
    """Returns the counts by the value of one label."""
    sums: dict[str, float] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            value = sample.labels[label]
            sums[value] = sums.get(value, 0.0) + sample.value
    return sums
