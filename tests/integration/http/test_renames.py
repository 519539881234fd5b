"""Renaming links over HTTP and by command."""

from __future__ import annotations

import uuid

import httpx

from tests.integration.http.service import Service
from tests.integration.http.test_links_command import run

LINKS = "/api/v1/links"


def new_code() -> str:
    return f"r{uuid.uuid4().hex[:12]}"


async def rename(client: httpx.AsyncClient, code: str, body: object, **headers: str) -> httpx.Response:
    return await client.post(f"{LINKS}/{code}/rename", json=body, headers=headers)


async def test_a_renamed_link_leads_on_at_both_codes(service: Service) -> None:
    """The new code has all that the link had, at every worker; the old one redirects and says its new code."""
    public = [service.client(worker=number) for number in range(2)]
    link = await service.shorten("https://example.org/a", title="T", tags=["x"], password=None)
    code, new = link["code"], new_code()
    assert [(await client.get(f"/{new}")).status_code for client in public] == [
        404,
        404,
    ]  # and cached as such
    answer = await rename(service.api, code, {"code": new}, **{"If-Match": '"1"'})
    assert answer.status_code == 200, answer.text
    assert answer.headers["location"] == f"{LINKS}/{new}"
    made = answer.json()
    same = ("url", "title", "tags", "account", "redirect_status", "expires_at", "rules")
    assert [made[name] for name in same] == [link[name] for name in same]
    for path in (code, new):
        assert (await public[0].get(f"/{path}")).headers["location"] == "https://example.org/a"
    old = (await service.api.get(f"{LINKS}/{code}")).json()
    assert (old["renamed_to"], old["version"], made["renamed_to"]) == (new, 2, None)
    changes = (await service.api.get(f"{LINKS}/{code}/history")).json()["changes"]
    assert changes[-1]["kind"] == "rename"
    assert changes[-1]["fields"] == [{"name": "renamed_to", "old": None, "new": new}]
    again = await rename(service.api, code, {"code": new})
    assert (again.status_code, again.json()) == (200, made)


async def test_an_old_code_can_be_given_up(service: Service) -> None:
    """With `give-up` the old code answers 410 and says where the link is; its clicks and history stay readable."""
    code, new = (await service.shorten())["code"], new_code()
    assert (await rename(service.api, code, {"code": new, "old": "give-up"})).status_code == 200
    assert (await service.client().get(f"/{code}")).status_code == 410
    told = await service.api.get(f"{LINKS}/{code}")
    assert told.status_code == 410
    assert told.json()["detail"] == f"the link was renamed to {new}, and this code was given up"
    for what in ("stats", "history"):
        assert (await service.api.get(f"{LINKS}/{code}/{what}")).status_code == 200
    assert (await rename(service.api, code, {"code": new, "old": "give-up"})).json()["code"] == new
    assert (await rename(service.api, code, {"code": new})).status_code == 410


async def test_a_rename_is_refused_for_each_reason(service: Service) -> None:
    """A rename of another's link, of an old version, of a link with `max_clicks`, or to a code that is taken or
    reserved is refused and changes nothing."""
    link = await service.shorten()
    code, other = link["code"], (await service.shorten())["code"]
    limited = (await service.shorten(max_clicks=3))["code"]
    stranger = service.client(await service.key("create", "read", "change"))
    reader = service.client(await service.key("read"))
    assert (await rename(stranger, code, {"code": new_code()})).status_code == 404
    assert (await rename(reader, code, {"code": new_code()})).status_code == 403
    assert (await rename(service.api, code, {"code": new_code()}, **{"If-Match": '"7"'})).status_code == 412
    assert (await rename(service.api, code, {"code": other})).status_code == 409
    for body in ({"code": "health"}, {"code": code}, {"code": new_code(), "old": "keep"}, {}):
        assert (await rename(service.api, code, body)).status_code == 422
    told = await rename(service.api, limited, {"code": new_code()})
    assert (told.status_code, told.json()["errors"][0]["pointer"]) == (422, "/code")
    assert (await service.api.get(f"{LINKS}/{code}")).json() == link


async def test_the_command_renames(service: Service) -> None:
    """`snapurl links rename` prints the new short URL; `--give-up` asks before it deletes the old code."""
    environ = {"SNAPURL_URL": service.workers[0].url, "SNAPURL_API_KEY": service.admin_key}
    code, second, third = (await service.shorten())["code"], new_code(), new_code()
    said = await run(environ, "rename", code, second, "--text")
    assert (said.code, said.out.rpartition("/")[2].strip()) == (0, second)
    asked = await run(environ, "rename", second, third, "--give-up", terminal=True, answer="n\n")
    assert asked.code != 0
    assert (await run(environ, "rename", second, third, "--give-up", "--yes")).document["code"] == third
    assert (await service.api.get(f"{LINKS}/{second}")).status_code == 410
