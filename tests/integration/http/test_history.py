"""The history of links over HTTP and by command."""

from __future__ import annotations

from tests.integration.http.service import Service
from tests.integration.http.test_links_command import run

LINKS = "/api/v1/links"


async def test_a_history_begins_with_the_create_and_outlives_the_link(service: Service) -> None:
    """Whoever owns a link sees who changed what of it, also when it is deleted; nobody else does."""
    key = await service.key("create", "read", "change")
    mine, stranger = service.client(key), service.client(await service.key("read"))
    me = key.split("_")[1]
    made = (await mine.post(LINKS, json={"url": "https://example.org/a", "password": "secret"})).json()
    path = f"{LINKS}/{made['code']}"
    at = "2099-01-31T12:00:00.000000Z"
    await mine.patch(path, json={"url": "https://example.org/b", "expires_at": at, "password": None})
    await mine.delete(path)
    answer = await mine.get(f"{path}/history")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["code"], found["dropped"]) == (made["code"], 0)
    create, change, delete = found["changes"]
    assert create == {
        "version": 1, "kind": "create", "at": made["created_at"], "by": me, "fields": [],
    }  # fmt: skip
    assert (change["kind"], change["by"], change["version"]) == ("change", me, 2)
    assert change["fields"] == [
        {"name": "expires_at", "old": None, "new": at},
        {"name": "password", "old": None, "new": "removed"},
        {"name": "url", "old": "https://example.org/a", "new": "https://example.org/b"},
    ]
    assert (delete["kind"], delete["fields"]) == ("delete", [])
    assert (await service.api.get(f"{path}/history")).json() == found
    for refused in (await stranger.get(f"{path}/history"), await mine.get(f"{LINKS}/no-such-link/history")):
        assert refused.status_code == 404
    create_only = service.client(await service.key("create"))
    assert (await create_only.get(f"{path}/history")).status_code == 403


async def test_the_command_shows_a_history(service: Service) -> None:
    """`snapurl links history` prints a line per change on a terminal, and the document elsewhere."""
    environ = {"SNAPURL_URL": service.workers[0].url, "SNAPURL_API_KEY": service.admin_key}
    code = (await service.shorten())["code"]
    await service.api.patch(f"{LINKS}/{code}", json={"title": "Sale", "enabled": False})
    said = await run(environ, "history", code, "--text")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[2:] for line in said.out.splitlines()[1:2]] == [
        [service.admin_key.split("_")[1], "create"]
    ]
    assert ["enabled", "yes", "no"] in [line.split()[-3:] for line in said.out.splitlines()]
    assert ["title", "Sale"] in [line.split()[-2:] for line in said.out.splitlines()]
    assert (await run(environ, "history", code)).document["dropped"] == 0
    missing = await run(environ, "history", "nobody-has-this")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
