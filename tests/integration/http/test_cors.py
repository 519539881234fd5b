"""CORS: which origins may use the API from a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from snapurl.http.response_headers import EXPOSED
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service

URL = "https://example.org/"
APP = "https://app.example.org"
OTHER = "https://other.example.org"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-api-key",
}


def cors(answer: httpx.Response) -> dict[str, str]:
    """Returns the CORS headers of a response."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.fixture(params=[APP + " http://localhost:3000", "*"])
async def shared(
    make_service: ServiceMaker, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Service, str]]:
    """Yields a service that other origins may use, and what it allows."""
    async with make_service(SNAPURL_CORS_ORIGINS=request.param) as service:
        yield service, request.param


async def test_an_allowed_origin_may_use_the_whole_api(shared: tuple[Service, str]) -> None:
    """An allowed origin may read every answer with its headers, problems too, on both paths; never with cookies."""
    service, allowed = shared
    link = await service.shorten()
    expected = {
        "access-control-allow-origin": "*" if allowed == "*" else APP,
        "access-control-expose-headers": EXPOSED,
    }
    api, anonymous = service.client(service.admin_key, Origin=APP), service.client(Origin=APP)
    for answer in (
        await api.get("/api/v1/links"),
        await api.post("/api/v1/links", json={"url": URL}),
        await anonymous.post("/api/v1/links", json={"url": URL}),
        await api.post("/api/v1/links", json={}),
        await api.patch(f"/api/v1/links/{link['code']}", json={"title": "x"}),
        await api.delete(f"/api/v1/links/{link['code']}"),
        await api.get("/api/v1/nothing"),
        await api.put("/api/v1/links"),
        await anonymous.get("/api/v1/links"),
    ):
        assert cors(answer) == expected
        assert "Origin" in answer.headers["vary"]
    assert cors(await api.get(f"/{link['code']}")) == {}


async def test_a_preflight_says_what_an_allowed_origin_may_send(shared: tuple[Service, str]) -> None:
    """A preflight of any path of the API is answered without a key: its methods, and the headers that it takes."""
    service, allowed = shared
    client = service.client(Origin=APP)
    for path, methods in (
        ("/api/v1/links", "GET, HEAD, POST, OPTIONS"),
        ("/api/v1/links/bulk", "POST, OPTIONS"),
        ("/api/v1/links/abc", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("/api/v1/links/abc/stats", "GET, HEAD, OPTIONS"),
        ("/api/v1/ring", "GET, HEAD, OPTIONS"),
    ):
        answer = await client.options(path, headers=PREFLIGHT)
        assert (answer.status_code, answer.content) == (204, b"")
        found = cors(answer)
        assert found["access-control-allow-origin"] == ("*" if allowed == "*" else APP)
        assert found["access-control-allow-methods"] == answer.headers["allow"] == methods
        sent = set(found["access-control-allow-headers"].lower().split(", "))
        assert sent >= {"authorization", "content-type", "idempotency-key", "if-match", "x-api-key"}
        assert "access-control-allow-credentials" not in found


async def test_another_origin_may_not(make_service: ServiceMaker) -> None:
    """An origin that is not in the list gets no CORS headers, so that its browser keeps the answer from it."""
    async with make_service(SNAPURL_CORS_ORIGINS=APP) as service:
        for origin in (OTHER, "null", APP + ".evil.example", APP.upper(), "http://app.example.org"):
            client = service.client(service.admin_key, Origin=origin)
            assert cors(await client.options("/api/v1/links", headers=PREFLIGHT)) == {}
            for path in ("/api/v1/links", "/api/v1/nothing"):
                answer = await client.get(path)
                assert cors(answer) == {} and "Origin" in answer.headers["vary"]
        assert cors(await service.api.get("/api/v1/links")) == {}


async def test_by_default_no_other_origin_may_use_the_api(service: Service) -> None:
    """Without the setting there are no CORS headers, and a preflight is refused."""
    client = service.client(service.admin_key, Origin=APP)
    assert cors(await client.get("/api/v1/links")) == {}
    answer = await client.options("/api/v1/links", headers=PREFLIGHT)
    assert answer.status_code == 405 and cors(answer) == {}
