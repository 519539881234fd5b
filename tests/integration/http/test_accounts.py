"""Accounts: whose links a key reaches, and how admins manage keys and accounts: over HTTP and by command."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import httpx
import pytest

from snapurl.accounts import create_account
from snapurl.cli import main
from snapurl.keys import create_key, list_keys, revoke_key
from tests.integration.http.service import Service
from tests.support.roles import Finished
from tests.support.waits import until

LINKS = "/api/v1/links"
KEYS = "/api/v1/keys"
ACCOUNTS = "/api/v1/accounts"
BODY = {"url": "https://example.org/"}
RIGHTS = ("create", "read", "change")
NOBODY = "acc_0000000000"


def id_of(key: str) -> str:
    return key.split("_")[1]


def new_name() -> str:
    return f"team {uuid.uuid4()}"


async def new_team(service: Service) -> str:
    """Creates an account with a name of its own and returns its id."""
    return (await create_account(service.settings, new_name())).account_id


async def member(service: Service, account: str) -> str:
    """Creates a key of the account."""
    return await create_key(service.settings, "member", RIGHTS, "none", account)


async def shorten(client: httpx.AsyncClient) -> str:
    """Creates a link and returns its path in the API."""
    answer = await client.post(LINKS, json=BODY)
    assert answer.status_code == 201, answer.text
    path: str = answer.headers["location"]
    return path


async def codes(client: httpx.AsyncClient) -> set[str]:
    answer = await client.get(LINKS, params={"limit": 200})
    return {f"{LINKS}/{link['code']}" for link in answer.json()["links"]}


# -- whose links -------------------------------------------------------------------------------------------------


async def test_the_keys_of_an_account_share_its_links_and_no_others_reach_them(service: Service) -> None:
    """Each key of an account lists, reads, changes and deletes the links of the others; for other keys there are
    none."""
    team = await new_team(service)
    one, two = [service.client(await member(service, team)) for _ in range(2)]
    stranger = service.client(await service.key(*RIGHTS))
    path, other = await shorten(one), await shorten(one)
    assert await codes(one) == await codes(two) == {path, other}
    assert (await two.get(path)).status_code == (await two.get(f"{path}/stats")).status_code == 200
    assert (await two.patch(path, json={"title": "x"})).json()["title"] == "x"
    assert (await two.delete(path)).status_code == 204
    assert await codes(one) == {other}
    assert await codes(stranger) == set()
    assert (await stranger.get(other)).status_code == (await stranger.delete(other)).status_code == 404
    assert (await service.api.get(other)).status_code == 200


async def test_bulk_creates_belong_to_the_account(service: Service) -> None:
    """Links of a bulk create belong to the account too."""
    team = await new_team(service)
    one, two = [service.client(await member(service, team)) for _ in range(2)]
    made = (await one.post(f"{LINKS}/bulk", json={"links": [BODY, BODY]})).json()["results"]
    assert await codes(two) == {f"{LINKS}/{item['link']['code']}" for item in made}


async def test_a_revoked_key_leaves_its_links_to_its_account(service: Service) -> None:
    """After a key is revoked, another key of its account reaches its links: also if the account was the key's own,
    and the other key came later."""
    first = await service.key(*RIGHTS)
    path = await shorten(service.client(first))
    await revoke_key(service.settings, first)
    heir = service.client(await member(service, id_of(first)))
    assert await codes(heir) == {path}
    assert (await heir.delete(path)).status_code == 204


# -- other accounts ----------------------------------------------------------------------------------------------


async def test_an_admin_gives_a_link_to_another_account(service: Service) -> None:
    """A link that is given away is reached by the keys of its new account and by no others; it goes on redirecting,
    and says who made it and who gave it away."""
    team = await new_team(service)
    giver_key = await service.key(*RIGHTS)
    giver, taker = service.client(giver_key), service.client(await member(service, team))
    path = await shorten(giver)
    assert (await giver.get(path)).json()["account"] == id_of(giver_key)
    assert (await giver.patch(path, json={"title": "x"})).json()["version"] == 2
    body = {"account": team}
    stale = await service.api.post(f"{path}/transfer", json=body, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    answer = await service.api.post(f"{path}/transfer", json=body, headers={"If-Match": '"2"'})
    link = answer.json()
    assert (answer.status_code, link["version"], answer.headers["etag"]) == (200, 3, '"3"')
    assert (link["account"], link["title"]) == (team, "x")
    assert (link["created_by"], link["changed_by"]) == (id_of(giver_key), id_of(service.admin_key))
    assert (await giver.get(path)).status_code == 404
    assert (await taker.get(path)).json() == link
    assert [change["kind"] for change in (await taker.get(f"{path}/history")).json()["changes"]] == [
        "create", "change", "transfer",
    ]  # fmt: skip
    assert (await service.client().get(f"/{link['code']}")).headers["location"] == BODY["url"]
    for number in (0, 1):
        log = service.workers[number].log.read_text()
        if f"link {link['code']} was given to account {team} by {id_of(service.admin_key)}" in log:
            break
    else:
        pytest.fail("the log does not say who gave the link away")


async def test_an_admin_creates_links_for_another_account(service: Service) -> None:
    """A create of an admin may name the account, single or in bulk; that of another key only its own account. An
    account that does not exist is refused, in bulk alone in its place."""
    team = await new_team(service)
    key = await member(service, team)
    own, stranger = service.client(key), service.client(await service.key(*RIGHTS))
    made = await service.api.post(LINKS, json={**BODY, "account": team})
    assert (made.status_code, made.json()["account"]) == (201, team)
    assert (await own.post(LINKS, json={**BODY, "account": team})).status_code == 201
    for client, status in ((stranger, 403), (service.client(), 403)):
        assert (await client.post(LINKS, json={**BODY, "account": team})).status_code == status
    unknown = await service.api.post(LINKS, json={**BODY, "account": NOBODY})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/account")
    items = [BODY, {**BODY, "account": NOBODY}, {**BODY, "account": team}]
    results = (await service.api.post(f"{LINKS}/bulk", json={"links": items})).json()["results"]
    assert [result["status"] for result in results] == [201, 422, 201]
    assert results[2]["link"]["account"] == team
    assert len(await codes(own)) == 3


async def test_what_cannot_be_given_is_refused(service: Service) -> None:
    """Only an admin gives links away, to accounts that exist, and only links that exist."""
    key = await service.key(*RIGHTS)
    path = await shorten(service.client(key))
    body = {"account": await new_team(service)}
    assert (await service.client(key).post(f"{path}/transfer", json=body)).status_code == 403
    unknown = await service.api.post(f"{path}/transfer", json={"account": NOBODY})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/account")
    assert (await service.api.post(f"{LINKS}/no-such-link/transfer", json=body)).status_code == 404
    assert (await service.api.delete(path)).status_code == 204
    assert (await service.api.post(f"{path}/transfer", json=body)).status_code == 410


async def test_all_links_of_an_account_are_given_to_another(service: Service) -> None:
    """A transfer that is repeated until it is complete leaves no link behind. Nobody else's links are touched. The
    links go on redirecting, also one that workers know at its version before and that may be used twice."""
    team = await new_team(service)
    key = await service.key(*RIGHTS)
    giver, taker = service.client(key), service.client(await member(service, team))
    other = await shorten(service.client(await service.key(*RIGHTS)))
    items = [{**BODY, "max_clicks": 2}, *[BODY] * 29]
    made = (await giver.post(f"{LINKS}/bulk", json={"links": items})).json()["results"]
    visitor, limited = service.client(), f"/{made[0]['link']['code']}"
    assert (await visitor.get(limited)).status_code == 302
    paths = {f"{LINKS}/{item['link']['code']}" for item in made}
    transfer, body = f"{ACCOUNTS}/{id_of(key)}/transfer", {"account": team}
    same = await service.api.post(transfer, json={"account": id_of(key)})
    assert (same.status_code, same.json()["errors"][0]["pointer"]) == (422, "/account")
    nobody = await service.api.post(f"{ACCOUNTS}/{NOBODY}/transfer", json=body)
    assert nobody.json()["type"] == "urn:snapurl:problem:no-such-account"
    answer = (await service.api.post(transfer, json=body)).json()
    assert answer == {"transferred": 30, "complete": True, "partial": []}
    assert (await codes(giver), await codes(taker)) == (set(), paths)
    assert [(await visitor.get(limited)).status_code for _ in range(2)] == [302, 410]
    assert (await service.api.get(other)).json()["account"] not in (team, id_of(key))
    again = (await service.api.post(transfer, json=body)).json()
    assert again == {"transferred": 0, "complete": True, "partial": []}


# -- over HTTP ---------------------------------------------------------------------------------------------------


async def test_an_admin_manages_keys_and_accounts(service: Service) -> None:
    """An admin creates an account and a key of it, finds both in lists, and revokes the key, which is refused then.

    The secret is in the answer to the create alone.
    """
    admin, name = service.api, new_name()
    account = (await admin.post(ACCOUNTS, json={"name": name})).json()
    assert account["name"] == name and account["created_by"] == id_of(service.admin_key)
    body = {
        "name": "colleague",
        "rights": ["read", "create"],
        "limit": "600/minute",
        "account": account["id"],
    }
    created = await admin.post(KEYS, json=body)
    assert created.status_code == 201
    key = created.json()
    secret = key.pop("key")
    assert {**body, "rights": ["create", "read"]}.items() <= key.items()
    assert key["revoked_at"] is None and key["created_by"] == id_of(service.admin_key)

    listed = await admin.get(KEYS, params={"account": account["id"]})
    assert listed.json() == {"keys": [key], "next_cursor": None, "partial": []}
    read = await admin.get(f"{ACCOUNTS}/{account['id']}")
    assert read.json() == {**account, "keys": [key], "next_cursor": None, "partial": []}
    assert account in (await admin.get(ACCOUNTS, params={"limit": 1})).json()["accounts"]
    account["name"] = new_name()
    renamed = await admin.patch(f"{ACCOUNTS}/{account['id']}", json={"name": account["name"]})
    assert (renamed.status_code, renamed.json()) == (200, account)
    assert account in (await admin.get(ACCOUNTS, params={"limit": 1})).json()["accounts"]
    assert secret not in listed.text + read.text

    colleague = service.client(secret)
    path = await shorten(colleague)
    assert (await admin.delete(f"{KEYS}/{key['id']}")).status_code == 204
    (revoked,) = (await admin.get(f"{ACCOUNTS}/{account['id']}")).json()["keys"]
    assert revoked["revoked_at"] is not None
    assert (await admin.get(path)).status_code == 200

    async def refused() -> bool:
        return (await colleague.get("/api/v1/me")).status_code == 401

    await until(refused)


async def test_lists_of_keys_go_on_from_their_cursor(service: Service) -> None:
    """Pages of keys have each key once, newest first."""
    team = await new_team(service)
    made = [id_of(await member(service, team)) for _ in range(5)]
    found: list[str] = []
    query = {"account": team, "limit": "2"}
    while True:
        page = (await service.api.get(KEYS, params=query)).json()
        found += [key["id"] for key in page["keys"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == made[::-1]
    for bad in ("x", query["cursor"] + "A", "x" * 101):
        answer = await service.api.get(KEYS, params={"cursor": bad})
        assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/query/cursor"


async def test_a_key_that_has_an_account_of_its_own_is_an_account(service: Service) -> None:
    """The account of a key that was given none has the id and the name of the key, and can get further keys."""
    first = await service.key("read")
    body = {"name": "second", "account": id_of(first)}
    second = (await service.api.post(KEYS, json=body)).json()
    account = (await service.api.get(f"{ACCOUNTS}/{id_of(first)}")).json()
    assert (account["id"], account["name"]) == (id_of(first), "test")
    assert [key["id"] for key in account["keys"]] == [second["id"], id_of(first)]
    assert second["rights"] == ["create", "read", "change"] and second["limit"] is None
    assert (await service.api.get(f"{ACCOUNTS}/{second['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", KEYS),
        ("POST", KEYS),
        ("DELETE", f"{KEYS}/0000000000"),
        ("GET", ACCOUNTS),
        ("POST", ACCOUNTS),
        ("GET", f"{ACCOUNTS}/{NOBODY}"),
        ("PATCH", f"{ACCOUNTS}/{NOBODY}"),
    ],
)
async def test_only_admins_manage_keys_and_accounts(service: Service, method: str, path: str) -> None:
    """Without a key the answer is 401, with one that is no admin key 403."""
    json = {"name": "x"} if method in ("POST", "PATCH") else None
    other = service.client(await service.key(*RIGHTS))
    for client, status in ((service.client(), 401), (other, 403)):
        assert (await client.request(method, path, json=json)).status_code == status


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": "a\u200bb"}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "x", "rights": []}, "/rights"),
        ({"name": "x", "rights": ["root"]}, "/rights/0"),
        ({"name": "x", "rights": ["read", "read"]}, "/rights"),
        ({"name": "x", "limit": "fast"}, "/limit"),
        ({"name": "x", "limit": ""}, "/limit"),
        ({"name": "x", "account": NOBODY}, "/account"),
        ({"name": "x", "account": "0000000000"}, "/account"),
        ({"name": "x", "account": "\u0000"}, "/account"),
        ({"name": "x", "key": "y"}, "/key"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_its_field(
    service: Service, body: dict[str, Any], pointer: str
) -> None:
    """A body that asks for no possible key gets 422, which points at the field."""
    answer = await service.api.post(KEYS, json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("identifier", ["0000000000", NOBODY, "a%00b", "%20", "acc_", "x" * 200])
async def test_ids_that_nobody_has_are_404(service: Service, identifier: str) -> None:
    """A key or an account that does not exist is 404, with a type of its own."""
    key = await service.api.delete(f"{KEYS}/{identifier}")
    account = await service.api.get(f"{ACCOUNTS}/{identifier}")
    renamed = await service.api.patch(f"{ACCOUNTS}/{identifier}", json={"name": "x"})
    assert (renamed.status_code, renamed.json()["type"]) == (404, account.json()["type"])
    assert (key.status_code, key.json()["type"]) == (404, "urn:snapurl:problem:no-such-key")
    assert (account.status_code, account.json()["type"]) == (404, "urn:snapurl:problem:no-such-account")


async def test_an_account_name_is_given_once(service: Service) -> None:
    """A second account of a name is refused with 409, which names the first; one that is renamed, too. The own
    account of a key keeps the name of the key."""
    name = new_name()
    first = (await service.api.post(ACCOUNTS, json={"name": name})).json()
    answer = await service.api.post(ACCOUNTS, json={"name": name})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:snapurl:problem:name-taken")
    assert first["id"] in answer.json()["detail"]
    other = (await service.api.post(ACCOUNTS, json={"name": new_name()})).json()
    answer = await service.api.patch(f"{ACCOUNTS}/{other['id']}", json={"name": name})
    assert answer.status_code == 409 and first["id"] in answer.json()["detail"]
    assert (await service.api.patch(f"{ACCOUNTS}/{first['id']}", json={"name": name})).json() == first
    own = await service.api.patch(f"{ACCOUNTS}/{id_of(service.admin_key)}", json={"name": new_name()})
    assert (own.status_code, own.json()["errors"][0]["pointer"]) == (422, "/name")


async def test_a_key_learns_what_it_may_do(service: Service) -> None:
    """Any valid key reads its rights, limits and account; an admin has all rights."""
    account = await create_account(service.settings, new_name())
    key = await create_key(service.settings, "mine", ["change"], "7/hour", account.account_id)
    expected = {"id": id_of(key), "name": "mine", "account": account.account_id, "account_name": account.name}
    limits = {"limit_create": "7/hour", "limit_api": "1200/minute"}
    assert (await service.client(key).get("/api/v1/me")).json() == {
        **expected,
        "rights": ["change"],
        **limits,
    }
    found = (await service.api.get("/api/v1/me")).json()
    assert found["rights"] == [*RIGHTS, "admin"]
    assert found["limit_api"] == "none" and found["account"] == id_of(service.admin_key)
    assert (await service.client().get("/api/v1/me")).status_code == 401


async def test_the_last_use_of_a_key_is_noted(service: Service) -> None:
    """A key that is used over HTTP has a time of last use soon after, one that is not has none."""
    used, unused = await service.key("read"), await service.key("read")
    assert (await service.client(used).get(LINKS)).status_code == 200

    async def is_noted() -> bool:
        found = {key.key_id: key.used_at for key in (await list_keys(service.settings))[0]}
        assert found[id_of(unused)] is None
        return found[id_of(used)] is not None

    await until(is_noted)


# -- on the command line -----------------------------------------------------------------------------------------


def run(words: tuple[str, ...]) -> Finished:
    """Runs `snapurl` in this process."""
    text = StringIO()
    with redirect_stdout(text), redirect_stderr(text), pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, int)
    return Finished(ended.value.code, text.getvalue())


async def test_the_command_line_manages_accounts(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts are created, listed, given keys by name, and shown with their keys; keys are revoked by name.

    What cannot be is one line and a non-zero exit code; an ambiguous name lists the ids.
    """

    monkeypatch.setenv("SNAPURL_SHARDS", service.settings.shards.get_secret_value())

    async def snapurl(*words: str) -> str:
        said = await asyncio.to_thread(run, words)
        assert said.code == 0, said.text
        return said.text.strip()

    async def refusal(*words: str) -> str:
        said = await asyncio.to_thread(run, words)
        assert said.code != 0 and said.text.count("\n") == 1, said.text
        return said.text

    name, key_name = new_name(), f"key {uuid.uuid4()}"
    team = await snapurl("accounts", "create", name)
    assert "has this name" in await refusal("accounts", "create", name)
    lines = (await snapurl("accounts", "list")).splitlines()
    assert lines[0].split() == ["id", "created", "name"]
    assert any(line.startswith(team) and line.endswith(name) for line in lines)
    first = id_of(await snapurl("keys", "create", key_name, "--account", name))
    second = id_of(await snapurl("keys", "create", key_name, "--account", team))
    assert "no account" in await refusal("keys", "create", "x", "--account", "nobody")

    members = json.loads(await snapurl("accounts", "members", name, "--json"))
    assert (members["id"], [key["id"] for key in members["keys"]]) == (team, [first, second])
    table = (await snapurl("accounts", "members", team)).splitlines()
    assert table[0].split()[:3] == ["id", "account", "rights"]
    assert [line.split()[:2] for line in table[1:]] == [[first, team], [second, team]]

    name, before = new_name(), name
    assert await snapurl("accounts", "rename", before, name) == f"{team} is called {name}."
    assert "no account" in await refusal("accounts", "rename", before, name)
    assert "is that of the key" in await refusal("accounts", "rename", id_of(service.admin_key), "x")
    assert [
        key["id"] for key in json.loads(await snapurl("accounts", "members", name, "--json"))["keys"]
    ] == [first, second]
    given = (await service.api.post(f"{LINKS}/bulk", json={"links": [BODY] * 3})).json()["results"]
    for item in given:
        await service.api.post(f"{LINKS}/{item['link']['code']}/transfer", json={"account": team})
    other = await snapurl("accounts", "create", new_name())
    assert (await snapurl("accounts", "transfer", name, other)).endswith("\n3 links given.")
    assert await snapurl("accounts", "transfer", name, other) == "0 links given."
    assert "same account" in await refusal("accounts", "transfer", name, team)

    said = await refusal("keys", "revoke", key_name)
    assert first in said and second in said
    assert first in await snapurl("keys", "revoke", first)
    assert second in await snapurl("keys", "revoke", key_name)
    assert "no valid key" in await refusal("keys", "revoke", key_name)
    revoked = {key.key_id for key in (await list_keys(service.settings))[0] if key.revoked_at is not None}
    assert {first, second} <= revoked
