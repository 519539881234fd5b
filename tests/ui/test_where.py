"""Where the dashboard is: nowhere if it is off, and at one host if there is a host for it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.http.service import Service, running


async def test_a_dashboard_that_is_off_is_nowhere(service: Service, tmp_path: Path) -> None:
    """With SNAPURL_DASHBOARD=off no page and no file of it is there; the API and redirects are as before."""
    style = next(
        part for part in (await service.client().get("/ui/login")).text.split('"') if part.endswith("app.css")
    )
    assert (await service.client().get(style)).status_code == 200
    async with running(service.settings, tmp_path, 1, SNAPURL_DASHBOARD="off") as other:
        client = other.client(Origin=other.workers[0].url, Accept="text/html")
        for path in ("/ui", "/ui/", "/ui/login", "/ui/links", "/ui/cluster/events", style):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.post("/ui/login", data={"key": other.admin_key})).status_code in (404, 405)
        home = await client.get("/")
        assert home.status_code == 200 and "/ui" not in home.text
        link = await other.shorten("https://example.org/without-pages")
        assert (await client.get(f"/{link['code']}")).headers[
            "location"
        ] == "https://example.org/without-pages"
