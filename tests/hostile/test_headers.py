"""Headers that cost more than they may, or that a parser does not survive."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanic import Request
from sanic.compat import Header

import snapurl
from snapurl.http import problems
from snapurl.http.problems import wants_page
from snapurl.http.wire.heads import HEADERS_MAX, LIST_CHARS_MAX, LIST_ITEMS_MAX, first_items
from snapurl.telemetry.otel import HEADER_CHARS_MAX, _short
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.paths import LAST
from tests.support.source_code import parsed

PARSED_BY_SANIC = {
    "accept", "args", "cookies", "credentials", "files", "form", "forwarded", "get_args", "get_cookie", "get_form",
    "get_query_args", "host", "id", "json", "load_json", "query_args", "remote_addr", "token", "url_for",
}  # fmt: skip
"""Attributes of Sanic's requests that parse a header, the query or the body without a bound of ours."""

LONG = [
    "text/html," * 1_600,
    "a/b;" * 4_000,
    "text/html" + ";q=0.1" * 2_700,
    ";" * 16_000,
    "," * 16_000,
    "a" * 16_000,
    "a/" * 8_000,
    " " * 16_000,
    '"' * 16_000,
]


def request_with(accept: str | None) -> Request:
    headers = Header([] if accept is None else [("accept", accept)])
    return Request(b"/abc", headers, "1.1", "GET", None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True),
        ("application/json, text/html;q=0.9", False),
        ("application/json;q=0.8, text/html;q=0.9", True),
        ("application/json, text/html", False),
        ("application/problem+json, text/html", False),
        ("text/html;level=1;q=0.5, application/json;q=0.4", True),
        ("text/html;q=0", False),
        ("text/html;q=nan", True),
        ("text/html;self=1;type_=2;q", True),
        ("text/htmlx", False),
        ("x" * 995 + ",text/html", False),
    ],
)
def test_only_who_prefers_html_by_name_gets_a_page(accept: str | None, wanted: bool) -> None:
    """A page is for clients that name text/html and prefer it to JSON, whatever else the header holds."""
    assert wants_page(request_with(accept)) is wanted


@pytest.mark.parametrize("value", LONG, ids=lambda value: value[:12])
def test_of_a_long_header_only_its_first_items_are_parsed(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Accept of 16 KB causes as much work as one of 1,000 bytes and 20 items."""
    parsed: list[str] = []

    class Counting:
        def match(self, item: str) -> object:
            parsed.append(item)
            return pattern.match(item)

    pattern = problems._MEDIA
    monkeypatch.setattr(problems, "_MEDIA", Counting())
    wants_page(request_with(value))
    assert len(parsed) <= LIST_ITEMS_MAX
    assert sum(map(len, parsed)) <= LIST_CHARS_MAX


@given(st.text(alphabet='a/;=,q.01*" ', max_size=50).map(lambda text: text * 40) | st.text(max_size=40))
def test_the_first_items_are_whole_items_in_their_order(value: str) -> None:
    """What is left of a header is the beginning of its list; no item is cut in two."""
    items = first_items(value)
    whole = value.split(",")
    assert len(items) <= LIST_ITEMS_MAX and sum(map(len, items)) <= LIST_CHARS_MAX
    assert items == whole[: len(items)] or (items == [""] and len(whole[0]) > LIST_CHARS_MAX)


def test_traces_ignore_long_headers() -> None:
    """A header that is too long reaches neither OpenTelemetry's parsers nor its warnings."""
    headers = {"traceparent": "00-1-2-01", "baggage": "a=b," * 4_000, "tracestate": "x" * HEADER_CHARS_MAX}
    assert _short(headers).keys() == {"traceparent", "tracestate"}


def test_no_header_reaches_a_parser_of_the_framework() -> None:
    """No module uses those attributes of a request for which Sanic parses a header without a bound."""
    found = set()
    for file in Path(*snapurl.__path__, "http").rglob("*.py"):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Attribute) and node.attr in PARSED_BY_SANIC:
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name == "request":
                    found.add(f"{file.name}: request.{node.attr}")
    assert not found


@pytest.mark.parametrize("accept", ["text/html;self=1", "text/html;type_=a;q=0.5", *LONG[:4]], ids=range(6))
async def test_no_accept_header_makes_a_refusal_fail(make_service: ServiceMaker, accept: str) -> None:
    """Whatever Accept says, an address that is not there gets 404, and no stack trace is logged."""
    async with make_service() as service:
        answer = await service.client(Accept=accept).get("/not-there")
        assert answer.status_code == 404
        assert "Traceback" not in service.workers[0].log.read_text()


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "slow"])
async def test_many_headers_are_refused_before_they_are_parsed(
    make_service: ServiceMaker, is_fast: bool
) -> None:
    """A request with more headers than allowed gets 413, which ends the connection; with as many it is answered."""
    async with make_service(SNAPURL_FAST_PATH=str(is_fast).lower()) as service:
        body = b'{"url":"https://example.org/"}'
        length = f"content-length: {len(body)}\r\ncontent-type: application/json\r\n"
        for line, own, sent, status in (
            ("GET /health/live", "", b"", b"200"),
            ("POST /api/v1/links", length, body, b"201"),
        ):
            left = HEADERS_MAX - 2 - own.count("\r\n")
            for count, expected in ((left, status), (left + 1, b"413"), (4_000, b"413")):
                names = f"{line} HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n{own}" + "a:\r\n" * count
                answer = await service.workers[0].say(
                    f"{names}\r\n".encode() + sent, b"" if expected == b"413" else LAST
                )
                assert answer.startswith(b"HTTP/1.1 " + expected), answer


@pytest.mark.parametrize("query", ["limit=" + "%31" * 4_000, "&" * 1_001, "a" * 1_001])
async def test_a_long_query_is_refused_unparsed(make_service: ServiceMaker, query: str) -> None:
    """A query longer than any that the API takes gets 400."""
    async with make_service() as service:
        answer = await service.api.get(f"/api/v1/links?{query}")
        assert answer.status_code == 400 and "characters" in answer.json()["detail"]
