"""Timings, which are added to histograms in batches, and the metrics of ended processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from random import Random

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest, mmap_dict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from snapurl.telemetry.metrics import Timing, timed
from snapurl.telemetry.multiprocess import collect, initialise, merge_dead

BOUNDS = (0.001, 0.01, 0.1)

CHILD = """
import sys
from prometheus_client import Counter, Gauge, Histogram
Counter("done_total", "d", ["kind"]).labels("x").inc(int(sys.argv[1]))
Histogram("took_seconds", "t", buckets=(1, 2)).observe(1.5)
for mode in ("livesum", "livemin", "livemax"):
    Gauge(f"now_{mode}", "n", multiprocess_mode=mode).set(1)
print(flush=True)
sys.stdin.read()
"""


def value_of(text: bytes, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_a_timing_says_what_the_library_would() -> None:
    """Observed one by one, many at a time or by the library itself: the same text is exported."""
    seconds = [Random(7).expovariate(100) for _ in range(500)] + [*BOUNDS, 0.0, 5.0]
    texts = []
    for way in ("library", "one by one", "many"):
        registry = CollectorRegistry()
        histogram = Histogram("took_seconds", "t", ["shard"], buckets=BOUNDS, registry=registry)
        series = Timing(histogram.labels("db0"))
        for taken in seconds:
            if way == "library":
                histogram.labels("db0").observe(taken)
            elif way == "many":
                series.observe_many(1, taken)
            else:
                series.observe(taken)
        series.flush()
        series.flush()
        found = generate_latest(registry).decode().splitlines()
        texts.append([line for line in found if "_created" not in line and "_sum" not in line])
        total = value_of(generate_latest(registry), "took_seconds_sum", shard="db0")
        assert total == pytest.approx(sum(seconds))
    assert texts[0] == texts[1] == texts[2]


def test_prometheus_client_has_what_we_use_of_its_internals() -> None:
    """The internals of prometheus_client that the program uses exist; after an upgrade this names missing ones."""
    histogram = Histogram("took_seconds", "t", buckets=BOUNDS, registry=CollectorRegistry())
    used: list[tuple[object, tuple[str, ...]]] = [
        (histogram, ("_upper_bounds", "_buckets", "_sum")),
        (mmap_dict, ("MmapedDict", "mmap_key")),
        (
            getattr(mmap_dict, "MmapedDict", None),
            ("read_all_values_from_file", "read_value", "write_value", "close"),
        ),
        (MultiProcessCollector, ("merge",)),
    ]
    missing = [f"{owner!r}.{name}" for owner, names in used for name in names if not hasattr(owner, name)]
    assert not missing, (
        f"prometheus_client {version('prometheus_client')} has renamed {', '.join(missing)}: adapt "
        "snapurl/telemetry/metrics.py (Timing) and multiprocess.py, or pin the version"
    )


def test_what_fails_is_timed_too() -> None:
    """The duration of a failed block is observed as well."""
    registry = CollectorRegistry()
    series = Timing(Histogram("took_seconds", "t", buckets=BOUNDS, registry=registry))
    with pytest.raises(ValueError, match="x"), timed(series):
        raise ValueError("x")
    series.flush()
    assert value_of(generate_latest(registry), "took_seconds_count") == 1


def child(directory: Path, done: int) -> subprocess.Popen[bytes]:
    """Starts a process that counts `done` and lives until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(done)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_dead_stay_counted_in_a_bounded_number_of_files(tmp_path: Path) -> None:
    """If processes are killed during reads, counters never decrease or count twice, and their gauges disappear."""
    initialise(tmp_path)
    seen: list[float] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(value_of(collect(tmp_path), "done_total", kind="x") or 0.0)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 11):
            process = child(tmp_path, number)
            process.kill()
            process.communicate()
            merge_dead(tmp_path, process.pid)
    finally:
        stop.set()
        reader.join()
    assert seen == sorted(seen)
    assert set(seen) <= {number * (number + 1) / 2 for number in range(11)}
    text = collect(tmp_path)
    assert value_of(text, "done_total", kind="x") == 55
    assert value_of(text, "took_seconds_count") == 10
    assert value_of(text, "took_seconds_bucket", le="1.0") == 0
    assert value_of(text, "took_seconds_bucket", le="2.0") == 10
    assert value_of(text, "snapurl_children_ended_total") == 10
    assert b"now_" not in text
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "counter_dead.db",
        "histogram_dead.db",
        "lock",
    ]


def test_the_living_and_the_dead_are_added_up(tmp_path: Path) -> None:
    """Counters include ended processes, of which there are none at first; gauges are those of live processes."""
    initialise(tmp_path)
    assert value_of(collect(tmp_path), "snapurl_children_ended_total") == 0
    first, second = child(tmp_path, 3), child(tmp_path, 4)
    assert value_of(collect(tmp_path), "now_livesum") == 2
    first.kill()
    first.communicate()
    merge_dead(tmp_path, first.pid)
    text = collect(tmp_path)
    assert (value_of(text, "done_total", kind="x"), value_of(text, "now_livesum")) == (7, 1)
    second.kill()
    second.communicate()


@pytest.mark.parametrize("content", [b"", b"\x00\x10\x00\x00" + b"\xff" * 4092])
def test_a_file_that_cannot_be_read_is_given_up(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreadable metrics file is skipped with one log line; the counts of other processes stay."""
    initialise(tmp_path)
    (tmp_path / "counter_4194304.db").write_bytes(content)
    merge_dead(tmp_path, 4_194_304)
    assert value_of(collect(tmp_path), "snapurl_children_ended_total") == 1
    assert not (tmp_path / "counter_4194304.db").exists()
    assert len(caplog.records) == 1
