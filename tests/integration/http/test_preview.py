"""Previews: where a link leads, without a click."""

from __future__ import annotations

import httpx

from snapurl.config import Settings
from tests.integration.http.conversations import head
from tests.integration.http.paths import paired, side
from tests.integration.http.service import PUBLIC_URL, Service
from tests.integration.http.test_redirects import BROWSER


async def test_a_preview_shows_where_a_link_leads(service: Service, api: httpx.AsyncClient) -> None:
    """`/{code}+` is a page for browsers and JSON for programs, and shows nothing of the link but the target."""
    url = "https://example.org/a?b='c'&d=<e>"
    link = await service.shorten(url, title="Inside only", tags=["inside"])
    found = await api.get(f"/{link['code']}+")
    assert found.status_code == 200
    assert found.json() == {
        "code": link["code"],
        "domain": None,
        "short_url": f"{PUBLIC_URL}/{link['code']}",
        "url": link["url"],
    }
    for path in (f"/{link['code']}+", f"/{link['code']}%2B"):
        page = await api.get(path, headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "<h1>This link leads to example.org</h1>" in page.text
        assert "https://example.org/a?b=%27c%27&amp;d=%3Ce%3E" in page.text
        assert f'href="/{link["code"]}"' in page.text
        assert "nside" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-robots-tag"] == "noindex"
    assert (await api.head(f"/{link['code']}+")).status_code == 200
    for code in (link["code"], "nobody-has-this"):
        refused = await api.post(f"/{code}+")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_a_preview_is_refused_as_its_redirect_is(service: Service, api: httpx.AsyncClient) -> None:
    """The preview of a link that does not redirect has the status and the words of the redirect."""
    deleted = (await service.shorten())["code"]
    await api.delete(f"/api/v1/links/{deleted}")
    expired = (await service.shorten())["code"]
    await service.expire(expired)
    off = (await service.shorten(enabled=False))["code"]
    early = (await service.shorten(starts_at="2999-01-01T00:00:00Z"))["code"]
    for code in ("nobody-has-this", deleted, expired, off, early, "health"):
        redirect = await api.get(f"/{code}")
        preview = await api.get(f"/{code}+")
        assert preview.status_code == redirect.status_code in (404, 410)
        words = [{**answer.json(), "request_id": ""} for answer in (redirect, preview)]
        assert words[0] == words[1]
        pages = [(await api.get(path, headers=BROWSER)).text for path in (f"/{code}", f"/{code}+")]
        assert pages[0] == pages[1]
    assert (await api.get(f"/{deleted}++")).status_code == 404


def test_looking_is_no_click_but_counts_as_a_miss(settings: Settings) -> None:
    """Previews and pages loaded in advance are no clicks on either path; a client that guesses by previews is
    shut out; without SNAPURL_PREVIEW nothing is at the address."""
    limited = settings.model_copy(update={"limit_missing": "2/minute"})
    with paired(limited) as pair:
        pair.create("fp-a")
        for looking in (head(target=b"/fp-a+"), head(b"Sec-Purpose: prefetch"), head(method=b"HEAD")):
            exchange = pair.agree(looking)
            assert exchange.clicks == {} and exchange.answers[9:12] in (b"200", b"302")
        assert pair.agree(head()).clicks == {"fp-a": 1}
        guesses = pair.loop.run(pair.fast.converse([head(target=b"/fp-none+") * 4]))
        statuses = [answer[:3] for answer in guesses.answers.split(b"HTTP/1.1 ")[1:-1]]
        assert statuses == [b"404", b"404", b"429", b"429"]
        assert pair.loop.run(_without(limited)).startswith(b"HTTP/1.1 404 ")


async def _without(settings: Settings) -> bytes:
    async with side(settings.model_copy(update={"preview": False, "limit_missing": "none"})) as service:
        return (await service.converse([head(target=b"/fp-a+")])).answers
