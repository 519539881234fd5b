"""QR codes of links over HTTP."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from snapurl.qr import Style, draw
from tests.integration.http.paths import undated
from tests.integration.http.service import PUBLIC_URL, Service


async def test_a_qr_code_says_the_short_url_and_that_it_was_scanned(
    service: Service, api: httpx.AsyncClient
) -> None:
    """The image, SVG or PNG, says `/{code}?qr`, and this address redirects exactly as `/{code}`."""
    code = (await service.shorten())["code"]
    path, says = f"/api/v1/links/{code}/qr", f"{PUBLIC_URL}/{code}?qr"
    svg = await api.get(path)
    assert (svg.status_code, svg.headers["content-type"]) == (200, "image/svg+xml")
    assert svg.content == draw(says, Style())
    png = await api.get(path, params={"format": "png", "size": 300, "border": 2, "error": "H"})
    assert (png.status_code, png.headers["content-type"]) == (200, "image/png")
    assert png.content == draw(says, Style("png", 300, 2, error="H"))
    coloured = await api.get(path, params={"dark": "1D4ED8", "light": "transparent"})
    assert coloured.content == draw(says, replace(Style(), dark="#1d4ed8", light="transparent"))
    close = " HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    for head in (close, close.replace("connection: close", "connection: keep-alive") + f"GET /{code}{close}"):
        plain, scanned = [
            undated(await service.workers[0].say(f"GET /{code}{query}{head}".encode()))
            for query in ("", "?qr")
        ]
        assert plain == scanned and plain.startswith(b"HTTP/1.1 302 ")


async def test_a_client_that_has_the_image_is_told_so(service: Service, api: httpx.AsyncClient) -> None:
    """With the ETag of an image the answer is 304 without a body; another look has another ETag."""
    path = f"/api/v1/links/{(await service.shorten())['code']}/qr"
    first = await api.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for given in (etag, f'"x", W/{etag}', "*"):
        again = await api.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for style in ({"size": 500}, {"format": "png"}, {"light": "transparent"}):
        other = await api.get(path, params=style, headers={"If-None-Match": etag})
        assert other.status_code == 200 and other.headers["etag"] != etag


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("format", ["", "gif", "SVG"]),
        ("size", ["", "31", "2049", "4e2", "٣٢٠", "33"]),
        ("border", ["-1", "17"]),
        ("dark", ["red", "#000000", "fff", "transparent", "ffffff"]),
        ("light", ["white", "00000g"]),
        ("error", ["l", "X"]),
    ],
)
async def test_a_look_that_cannot_be_drawn_is_refused(
    service: Service, api: httpx.AsyncClient, name: str, values: list[str]
) -> None:
    """A parameter out of its range is refused by name; so are a size too small for the code and equal colours."""
    path = f"/api/v1/links/{(await service.shorten())['code']}/qr"
    for value in values:
        answer = await api.get(path, params={name: value})
        assert answer.status_code == 422, value
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/query/{name}"]


async def test_a_qr_code_takes_the_right_to_read_the_link(service: Service, api: httpx.AsyncClient) -> None:
    """A key without the right gets 403, no key 401, the key of somebody else 404; a deleted link has no QR code."""
    code = (await service.shorten())["code"]
    path = f"/api/v1/links/{code}/qr"
    assert (await service.client().get(path)).status_code == 401
    assert (await service.client(await service.key("create")).get(path)).status_code == 403
    assert (await service.client(await service.key("read")).get(path)).status_code == 404
    await api.delete(f"/api/v1/links/{code}")
    assert (await api.get(path)).status_code == 410
