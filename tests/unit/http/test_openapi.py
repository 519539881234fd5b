"""The OpenAPI document, /docs and the route table agree with each other and with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from snapurl.codes import is_code, is_reserved
from snapurl.config import load_settings
from snapurl.domains import Domains
from snapurl.errors import FieldError, Gone, Invalid
from snapurl.http.docs.openapi import document
from snapurl.http.docs.page import PAGE
from snapurl.http.docs.site import make_site
from snapurl.http.html import home_page, refusal_page
from snapurl.http.routes import ROUTES
from snapurl.http.schema import responses, statistics
from snapurl.http.schema.responses import CONTENT_TYPE, TYPE_PREFIX, problem
from snapurl.model import (
    Link,
    Readiness,
    RingView,
    ShardHealth,
    ShardShare,
    SourceClicks,
    SourceKind,
)
from snapurl.periods import DateRange, DayCounts, Report
from tools.cluster.migrator_status import MigratorStatus, MoveStatus

DOCUMENT = document(ROUTES, "https://s.example.org", "1.2.3", anonymous=True)
LINK = Link(
    "https://example.org/",
    tags=("a",),
    code="abc",
    created_at=datetime(2030, 1, 1, tzinfo=UTC),
    deleted_at=None,
    owner="k",
    version=3,
)


def walk(value: Any) -> Iterator[Any]:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from walk(child)


def test_every_reference_leads_somewhere() -> None:
    """Every `$ref` of the document points at an existing schema."""
    references = {item["$ref"] for item in walk(DOCUMENT) if isinstance(item, dict) and "$ref" in item}
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references and references <= known


def test_every_route_is_documented_with_its_problems() -> None:
    """Each operation has a unique id and documents the answer to a wrong method."""
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == len(ROUTES) + 8
    for operation in operations:
        assert "405" in operation["responses"]


def test_every_problem_is_explained_with_a_sample() -> None:
    """Each problem response says when each of its types occurs, in words of its own, and shows a valid sample."""
    for operation in (found for methods in DOCUMENT["paths"].values() for found in methods.values()):
        for status, response in operation["responses"].items():
            for sample in response.get("content", {}).get(CONTENT_TYPE, {}).get("examples", {}).values():
                body = responses.Problem.model_validate(sample["value"])
                assert str(body.status) == status
                assert body.type in response["description"]
            if int(status) >= 400 and CONTENT_TYPE in response.get("content", {}):
                lines = response["description"].splitlines()
                assert (
                    len({line.partition("`: ")[2] for line in lines})
                    == len(lines)
                    == len(response["content"][CONTENT_TYPE]["examples"])
                )


def test_links_are_shown_with_sample_answers() -> None:
    """Each successful answer about links has a sample that fits its schema."""
    for route in ROUTES:
        for success in route.successes:
            if route.tag == "Links" and success.model is not None:
                operation = DOCUMENT["paths"][route.path][route.method.lower()]
                content = operation["responses"][str(success.status)]["content"]["application/json"]
                success.model.model_validate(content["example"])


def test_a_change_has_no_defaults() -> None:
    """The schema of a change has no defaults, which a generated client would send and so overwrite fields."""
    schemas = DOCUMENT["components"]["schemas"]
    assert not [field for field in schemas["LinkChange"]["properties"].values() if "default" in field]
    assert schemas["LinkChange"]["minProperties"] == 1
    assert schemas["LinkDraft"]["properties"]["redirect_status"]["default"] == 302


def test_the_limits_of_the_deployment_are_shown() -> None:
    """The document lists the limits that a client meets, with the values of this deployment."""
    settings = load_settings(limit_create="7/minute", url_chars_max=1_234)
    description = json.loads(make_site(ROUTES, settings).openapi())["info"]["description"]
    assert "| 7/minute |" in description and "| 1234 |" in description


def test_creating_needs_a_key_unless_the_deployment_lets_anybody() -> None:
    """The document makes the key optional for a create only if the setting allows anonymous creates."""
    closed = document(ROUTES, "https://s.example.org", "1", anonymous=False)
    assert {} in DOCUMENT["paths"]["/api/v1/links"]["post"]["security"]
    assert {} not in closed["paths"]["/api/v1/links"]["post"]["security"]
    assert {} not in DOCUMENT["paths"]["/api/v1/links"]["get"]["security"]


def test_no_alias_can_hide_one_of_our_own_addresses() -> None:
    """Every first path segment that could be a code is reserved."""
    segments = {route.path.split("/")[1] for route in ROUTES} - {""}
    assert {"api", "docs", "health"} <= segments
    assert all(is_reserved(segment) for segment in segments if is_code(segment))
    beside_codes = {route.path.removeprefix("/api/v1/links/") for route in ROUTES} - {"{code}"}
    assert "bulk" in beside_codes
    assert all(is_reserved(name) for name in beside_codes if is_code(name))


def test_pages_load_nothing_from_anywhere() -> None:
    """No page has an inline script, or an address outside this deployment that a browser would fetch."""
    for html in (PAGE, home_page("1"), refusal_page(Gone())):
        assert "@import" not in html and "url(" not in html
        assert all(inside == "" for inside in re.findall(r"<script[^>]*>([^<]*)", html))
        fetched = re.findall(r'(?:src|href|action)="([^"]*)"', html)
        assert fetched and not any("//" in address for address in fetched)
    assert "<script" not in home_page("1") + refusal_page(Gone())


def test_everything_that_the_docs_load_has_a_route() -> None:
    """Each script and style of /docs has a route of the service."""
    paths = {route.path for route in ROUTES}
    loaded = re.findall(r'(?:src|href)="([^"]*)"', PAGE)
    assert {f"/{address}" for address in loaded} <= paths


def test_the_description_explains_every_problem() -> None:
    """The document lists each problem `type` with its status and title."""
    description = DOCUMENT["info"]["description"]
    for kind in (Gone, Invalid):
        assert f"| `{TYPE_PREFIX}{kind.slug}` | {kind.status} | {kind.title} |" in description


def test_refusal_pages_escape_what_they_show() -> None:
    """Refusal pages escape everything that a client sent."""
    assert "<b>" not in refusal_page(Gone("<b>bold</b>"))


def test_bodies_of_answers_fit_their_schemas() -> None:
    """Response bodies have exactly the fields of their schemas."""
    link = responses.link_body(LINK, Domains.of("https://s.example.org"))
    assert link["short_url"] == "https://s.example.org/abc"
    assert link["created_at"] == "2030-01-01T00:00:00.000000Z"
    responses.LinkBody.model_validate(link)
    refusal = problem(Invalid(fields=(FieldError("/url", "x"),)))
    responses.Problem.model_validate(refusal)
    responses.BulkResults.model_validate(
        {"results": [{"status": 201, "link": link}, {"status": 422, "error": refusal}]}
    )
    period = DateRange(date(2030, 1, 1), date(2030, 1, 2))
    days = [DayCounts(date(2030, 1, 1), 2, 1), DayCounts(date(2030, 1, 2), 3, 0)]
    months = [DayCounts(date(2030, 1, 1), 40, 4, 9, is_month=True)]
    whole = DateRange(date(2030, 1, 1), date(2030, 1, 31)).series(months + days)
    assert statistics.series_rows(whole)[1:] == [
        ("2030-01", 40, 4, 9),
        ("2030-01-01", 2, 1, None),
        ("2030-01-02", 3, 0, None),
    ]
    series = period.series(months + days)
    sources = [
        SourceClicks(SourceKind.REFERRER, "example.com", 3),
        SourceClicks(SourceKind.BROWSER, "firefox", 5),
    ]
    report = Report(series, series, sources, days, ("db1",))
    stats = statistics.link_stats_body("abc", report)
    assert stats["referrers"] == [{"host": "example.com", "clicks": 3}]
    assert stats["browsers"] == [{"family": "firefox", "clicks": 5}]
    assert (stats["clicks"], stats["bots"], stats["visitors"]) == (5, 1, None)
    month = {"month": "2030-01-01", "clicks": 40, "bots": 4, "visitors": 9, "counted": False}
    assert stats["months"] == [month]
    statistics.Stats.model_validate(stats)
    statistics.GroupStats.model_validate(statistics.group_stats_body(report, is_admin=True))
    of_kind = statistics.kind_stats_body(SourceKind.REFERRER, report, is_admin=True)
    assert of_kind["values"] == [{"value": "example.com", "clicks": 3}]
    statistics.KindStats.model_validate(of_kind)
    share = ShardShare("db0", 1.0, False, "10.0.0.1:5432/snapurl", 100, 120, 0.25)
    view = RingView("id", 1, 1024, False, (share,), 3, 4)
    move = MoveStatus("slot 7, db0@1 -> db4", "copy", 0.2)
    told = {**asdict(MigratorStatus(moves=(move,), last_error="10.0.0.1 is down")), "age_s": 0.1}
    for reshard in (None, told):
        ring = responses.ring_body(view, reshard)
        assert "10.0.0.1" not in str(ring)
        assert (ring["reshard"] is None) == (reshard is None)
        responses.Ring.model_validate(json.loads(json.dumps(ring)))
    assert responses.ring_body(view, {"state": "of another version"})["reshard"] is None


def test_readiness_says_ok_degraded_or_down() -> None:
    """Readiness reports `degraded` if some shards are down, and `down` only if no shard responds; clients get
    reasons without names, operators get both."""
    up, down = ShardHealth("db0", True, "answers"), ShardHealth("db1", False, "is unreachable")
    cases: list[tuple[str, tuple[ShardHealth, ...], str | None, int]] = [
        ("ok", (up, up), None, 0),
        ("degraded", (up, down), None, 1),
        ("degraded", (up,), "does not answer", 1),
        ("down", (down, down), "does not answer", 2),
    ]
    for status, shards, redis, reasons in cases:
        found = Readiness("3f", shards, {"redis": redis})
        body = responses.ready_body(found)
        responses.Ready.model_validate(body)
        assert (body["status"], len(body["reasons"]), body["cluster_id"]) == (status, reasons, "3f")
        assert not re.search("db[01]|unreachable|redis", str(body), re.IGNORECASE)
        details = responses.ready_details(found)
        assert details["status"] == status
        assert [shard["name"] for shard in details["shards"]] == [shard.name for shard in shards]
        assert details["redis"] == {"ok": redis is None, "detail": redis or "works"}
