"""All results of a run of the suite, and its goals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.goals import Goal
from benchmarks.load.flood import Flood
from benchmarks.load.moving import Moving
from benchmarks.load.sample import Result, with_dashboards

REDIRECTS = ("hot", "hot2", "zipf", "warm", "cold", "mixed")


@dataclass(slots=True)
class Outcome:
    """The results that were measured; others are absent."""

    results: list[Result] = field(default_factory=list)
    worker_mib: tuple[float, float] | None = None
    floods: list[Flood] = field(default_factory=list)
    moving: Moving | None = None
    by_links: Mapping[int, Result] = field(default_factory=dict)
    by_shards: Mapping[int, Mapping[str, Result]] = field(default_factory=dict)
    dashboards: int = 0

    def find(self, scenario: str, subject: str) -> Result | None:
        return next(
            (item for item in self.results if item.scenario == scenario and item.subject == subject), None
        )

    def own(self) -> list[Result]:
        """Returns every result of SnapURL, including those of growth and of the move."""
        shards = (item for results in self.by_shards.values() for item in results.values())
        moving = (self.moving.still, self.moving.moving) if self.moving else ()
        names = ("SnapURL", with_dashboards("SnapURL", self.dashboards))
        plain = (item for item in self.results if item.subject in names)
        return [*plain, *self.by_links.values(), *shards, *moving]

    def document(self) -> dict[str, Any]:
        return {
            "results": [item.document() for item in self.results],
            "worker_mib": dict(zip(("empty", "with_links"), self.worker_mib, strict=True))
            if self.worker_mib
            else None,
            "floods": [item.document() for item in self.floods],
            "reshard": {
                "still": self.moving.still.document(),
                "moving": self.moving.moving.document(),
                "add": self.moving.added.document(),
                "redirects_answered": self.moving.clicks.answered,
                "clicks_counted": self.moving.clicks.counted,
            }
            if self.moving
            else None,
            "by_links": {str(count): item.document() for count, item in self.by_links.items()},
            "by_shards": {
                str(count): {name: item.document() for name, item in results.items()}
                for count, results in self.by_shards.items()
            },
        }


def goals_of(found: Outcome) -> list[Goal]:
    """Returns the goals, each with its measured value."""
    snap, nginx = found.find("hot", "SnapURL"), found.find("hot", "nginx")
    bulk = found.find("bulk", "SnapURL")
    create = found.find("create", "SnapURL")
    return [
        Goal(
            "hot redirect, counted: CPU per request / nginx `return 302`",
            "<=",
            2.0,
            _ratio(_cpu(snap), _cpu(nginx)),
        ),
        Goal(
            "hot redirect, one worker: requests/s / nginx, one worker",
            ">=",
            0.6,
            _ratio(_rate(snap), _rate(nginx)),
        ),
        _against_flask(found, "hot redirect, two workers / the Flask stack", "hot2", 20),
        _against_flask(found, "Zipf, two workers / the Flask stack", "zipf", 15),
        Goal(
            "warm redirect (Redis) / a Sanic handler with one Redis GET",
            ">=",
            1.0,
            _ratio(_rate(found.find("warm", "SnapURL")), _rate(found.find("warm", "Sanic + Redis GET"))),
        ),
        _against_flask(found, "create, durable / the Flask stack", "create", 4),
        Goal(
            "bulk create, links/s / single create",
            ">=",
            8,
            _ratio(bulk.rate * bulk.per_request if bulk else None, _rate(create)),
        ),
        Goal(
            "resident memory of a worker with all links cached",
            "<=",
            150,
            found.worker_mib[1] if found.worker_mib else None,
            " MiB",
        ),
        Goal("clicks counted / redirects answered, the worst run", "=", 1, _worst_clicks(found)),
        Goal(
            "a flood of clicks for 30 s: lag in its second half / in its first, the worst",
            "<=",
            1.5,
            max((item.lag_s[1] / item.lag_s[0] for item in found.floods if item.lag_s[0]), default=None),
        ),
        Goal("socket errors and non-302 answers of all redirect runs", "=", 0, _errors(found)),
        Goal("throughput with the most links / with the fewest, Zipf", ">=", 0.8, _growth(found)),
        *([_watched(found)] if found.dashboards else []),
    ]


def _against_flask(found: Outcome, what: str, scenario: str, goal: float) -> Goal:
    ours, theirs = found.find(scenario, "SnapURL"), found.find(scenario, "Flask stack")
    return Goal(what, ">=", goal, _ratio(_rate(ours), _rate(theirs)))


def _watched(found: Outcome) -> Goal:
    """Returns the goal of redirects while dashboards are open, of the scenario that loses most."""
    name = with_dashboards("SnapURL", found.dashboards)
    ratios = [
        ratio
        for scenario in REDIRECTS
        if (ratio := _ratio(_rate(found.find(scenario, name)), _rate(found.find(scenario, "SnapURL"))))
    ]
    what = f"redirects/s with {found.dashboards} dashboards open / with none, the worst scenario"
    return Goal(what, ">=", 0.97, min(ratios, default=None))


def _cpu(result: Result | None) -> float | None:
    """Returns the CPU time of the workers, their supervisor and the click consumer."""
    return result.cpu["service"] + result.cpu["consumer"] if result else None


def _rate(result: Result | None) -> float | None:
    return result.rate if result else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _worst_clicks(found: Outcome) -> float | None:
    ratios = [sample.clicks.ratio for item in found.own() for sample in item.samples if sample.clicks]
    ratios += [item.counted / item.recorded for item in found.floods]
    if found.moving:
        ratios.append(found.moving.clicks.ratio)
    return max(ratios, key=lambda ratio: abs(ratio - 1), default=None)


def _errors(found: Outcome) -> float | None:
    """Returns the errors seen by the generator, plus the responses that the service did not count as redirects."""
    results = [item for item in found.own() if item.scenario in (*REDIRECTS, "still", "moving")]
    if not results:
        return None
    seen = sum(sum(item.errors.values()) for item in results)
    return seen + sum(_not_redirected(results))


def _not_redirected(results: Iterable[Result]) -> Iterable[int]:
    """Yields, for runs of redirects alone, requests answered minus redirects counted, if positive."""
    for item in results:
        if item.scenario == "mixed":
            continue
        for sample in item.samples:
            if sample.clicks is not None:
                yield max(0, sample.sent.requests - sample.clicks.answered)


def _growth(found: Outcome) -> float | None:
    if len(found.by_links) < 2:
        return None
    return _ratio(found.by_links[max(found.by_links)].rate, found.by_links[min(found.by_links)].rate)
