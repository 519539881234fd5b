"""Dashboard and alerts use existing metrics and labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from snapurl.telemetry import metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/snapurl.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())

# The labels of a selector, such as `snapurl_x_total{outcome="failed"}`, and those of `by` clauses.
SELECTOR = re.compile(r"(snapurl_\w+)(?:\{([^}]*)\})?")
BY = re.compile(r"\bby \(([^)]*)\)")
GIVEN = {"instance", "job"}  # labels that Prometheus adds


def exported() -> dict[str, set[str]]:
    """Returns the labels of each metric by its scraped name."""
    assert isinstance(REGISTRY, CollectorRegistry)
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            for family in metric.describe():
                ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
                    family.type, ("",)
                )
                for end in ends:
                    found[family.name + end] = labels | ({"le"} if end == "_bucket" else set())
    return found


def alerts() -> Iterator[dict[str, Any]]:
    for group in ALERTS["groups"]:
        yield from group["rules"]


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for alert in alerts():
        yield alert["expr"]


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_expressions_name_what_is_exported(expression: str) -> None:
    """Each metric of an expression is exported, and has the labels that the expression selects and sums by."""
    known = exported()
    named = SELECTOR.findall(expression)
    assert named
    labels = set(GIVEN)
    for name, selected in named:
        assert name in known
        assert set(re.findall(r"(\w+)\s*[=!]", selected)) <= known[name]
        labels |= known[name]
    for summed in BY.findall(expression):
        assert {label.strip() for label in summed.split(",")} <= labels


def test_every_metric_is_shown() -> None:
    """The dashboard shows every metric."""
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for t in panel.get("targets", ())
        for name, _ in SELECTOR.findall(t["expr"])
    }
    hidden = {name for name in exported() if not name.endswith(("_sum", "_count"))} - shown
    assert not hidden


def test_alerts_say_what_to_do() -> None:
    """Each alert has a unique name, a severity, a summary, and a description of the first step."""
    names = [alert["alert"] for alert in alerts()]
    assert len(names) == len(set(names))
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["description"].endswith(".")
