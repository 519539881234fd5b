"""The requests of a run, and its results. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """The requests of a run. `paths` are requested in order, a single one repeatedly. With `post_every` n
    each n-th request is a POST of `body` to `post_path` instead; 0 is none, 1 is all."""

    paths: Sequence[str] = ("/",)
    connections: int = 64
    post_path: str = ""
    body: bytes = b""
    post_every: int = 0


def with_dashboards(subject: str, dashboards: int) -> str:
    """Returns what a subject is called in the runs during which so many dashboards are open."""
    return f"{subject}, {dashboards} dashboards"


@dataclass(frozen=True, slots=True)
class Sent:
    """What the load generator saw: responses, seconds, latencies in ms, errors by kind ("status": 4xx and 5xx)."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clicks:
    """Redirects according to SnapURL's metrics, and clicks according to the shards."""

    answered: int
    counted: int

    @property
    def ratio(self) -> float:
        return self.counted / self.answered if self.answered else float(self.counted == 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. CPU in seconds per 1,000 requests and memory in MiB, both by group of processes."""

    sent: Sent
    cpu: Mapping[str, float]
    memory_mib: Mapping[str, float]
    clicks: Clicks | None = None

    @property
    def rate(self) -> float:
        """Returns requests per second."""
        return self.sent.requests / self.sent.seconds


@dataclass(frozen=True, slots=True)
class Result:
    """All runs of one subject in one scenario. `per_request` is the number of links created by a request."""

    scenario: str
    subject: str
    workers: int
    samples: Sequence[Sample]
    per_request: int = 1

    @property
    def rate(self) -> float:
        return median(sample.rate for sample in self.samples)

    @property
    def cpu(self) -> dict[str, float]:
        """Returns the median CPU seconds per 1,000 requests for each group."""
        groups = self.samples[0].cpu
        return {name: median(sample.cpu[name] for sample in self.samples) for name in groups}

    @property
    def memory_mib(self) -> dict[str, float]:
        """Returns the maximum of all runs for each group."""
        groups = self.samples[0].memory_mib
        return {name: max(sample.memory_mib[name] for sample in self.samples) for name in groups}

    @property
    def errors(self) -> dict[str, int]:
        """Returns the total of all runs for each kind of error."""
        found: dict[str, int] = {}
        for sample in self.samples:
            for kind, count in sample.sent.errors.items():
                found[kind] = found.get(kind, 0) + count
        return found

    def latency(self, what: str) -> float:
        """Returns the median over the runs of `p50_ms`, `p99_ms` or `p999_ms`."""
        return median(float(getattr(sample.sent, what)) for sample in self.samples)

    def document(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "subject": self.subject,
            "workers": self.workers,
            "links_per_request": self.per_request,
            "median": {
                "requests_per_s": self.rate,
                **{name: self.latency(name) for name in ("p50_ms", "p99_ms", "p999_ms")},
                "cpu_s_per_1000": self.cpu,
            },
            "memory_mib_max": self.memory_mib,
            "errors": self.errors,
            "runs": [{**asdict(sample), "requests_per_s": sample.rate} for sample in self.samples],
        }
