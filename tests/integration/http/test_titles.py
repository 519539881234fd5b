"""The title of a link's target, fetched on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from snapurl.config import Settings
from snapurl.keys import create_key
from tests.integration.http.test_app import served
from tests.unit.test_titles import PAGE, Web


async def test_a_link_gets_the_title_of_its_target(make_settings: Callable[..., Settings]) -> None:
    """A link takes the title that the page it leads to has now, as a change of its own; where there is none, the
    link stays as it is. Another key's link is not there."""
    web = Web(answers={"/page": PAGE % b"Spring &amp; sale"})
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    settings = make_settings(fetch_titles=True)
    async with server, served(settings) as (app, client):
        app.ctx.services.links._titles = web.fetcher()
        rights = ["create", "read", "change"]
        client.headers["X-Api-Key"] = await create_key(settings, "own", rights, "", "")
        code = (await client.post("/api/v1/links", json={"url": web.url("/page")})).json()["code"]
        answer = await client.post(f"/api/v1/links/{code}/title")
        link = answer.json()
        assert (answer.status_code, link["title"], link["version"]) == (200, "Spring & sale", 2)
        web.answers["/page"] = PAGE % b""
        refused = await client.post(f"/api/v1/links/{code}/title")
        assert (refused.status_code, refused.json()["detail"]) == (422, "the page has no title")
        assert (await client.get(f"/api/v1/links/{code}")).json() == link
        client.headers["X-Api-Key"] = await create_key(settings, "other", rights, "", "")
        assert (await client.post(f"/api/v1/links/{code}/title")).status_code == 404
    assert len(web.asked) == 2


async def test_nothing_is_fetched_where_it_is_off(settings: Settings) -> None:
    """Unless the operator has switched it on, the service fetches nothing and says so."""
    async with served(settings) as (_, client):
        client.headers["X-Api-Key"] = await create_key(settings, "own", ["create", "change"], "", "")
        code = (await client.post("/api/v1/links", json={"url": "https://example.org/"})).json()["code"]
        refused = await client.post(f"/api/v1/links/{code}/title")
        assert refused.status_code == 422 and "SNAPURL_FETCH_TITLES" in refused.json()["detail"]
