"""Webhooks over HTTP: who may do what, and what the receiver gets."""

from __future__ import annotations

import httpx
import pytest

from snapurl.messages import CHOICE
from snapurl.webhooks import upkeep
from tests.integration.http.service import Service
from tests.support.receiver import OK, Receiver
from tests.support.waits import until


async def test_a_receiver_is_told_of_a_link(api: httpx.AsyncClient, receiver: Receiver) -> None:
    """From the answer to its creation on, a webhook is told of each change of a link: in order, signed, as the API
    shows the link."""
    answer = await api.post("/api/v1/webhooks", json={"url": receiver.url})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    link = (await api.post("/api/v1/links", json={"url": "https://example.org/a", "tags": ["a"]})).json()
    await until(lambda: receiver.kinds_of(link["code"]))
    (first,) = (each for each in receiver.received if each.code == link["code"])
    told = first.verify(made["secret"])
    assert told["type"] == "link.created"
    assert told["data"]["link"] == {
        **{name: value for name, value in link.items() if name != "clicks"},
        "is_cut": False,
    }


async def test_each_kind_of_event_is_sent_in_order(
    api: httpx.AsyncClient, service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done to a link, its expiry, its last use and its clicks are sent: once each, in the order of the
    changes, to whoever asked for them."""
    monkeypatch.setattr(upkeep, "EXPIRED_EVERY_S", 0.05)
    every = {"url": receiver.url, "events": [kind.value for kind in CHOICE]}
    assert (await api.post("/api/v1/webhooks", json=every)).status_code == 201
    link = await service.shorten()
    path = f"/api/v1/links/{link['code']}"
    await api.patch(path, json={"title": "b"})
    await api.patch(path, json={"enabled": False})
    await api.patch(path, json={"enabled": True})
    await api.delete(path)
    await api.post(f"{path}/restore")
    await service.expire(link["code"])
    names = ["created", "updated", "disabled", "updated", "deleted", "restored", "updated", "expired"]
    await until(lambda: receiver.kinds_of(link["code"]) == [f"link.{name}" for name in names],
                lambda: receiver.kinds_of(link["code"]))  # fmt: skip
    few = (await api.post("/api/v1/links", json={"url": "https://example.org/", "max_clicks": 1})).json()
    assert (await service.client().get(f"/{few['code']}")).status_code == 302
    await until(lambda: receiver.kinds_of(few["code"])[1:] == ["link.max_clicks_reached"])


async def test_webhooks_are_of_their_account(
    api: httpx.AsyncClient, service: Service, receiver: Receiver
) -> None:
    """A key sees and changes the webhooks of its account, which get its links alone; it names no other account.
    What a receiver has refused is in the log, is sent again, and a secret is shown once."""
    keys = [
        (await api.post("/api/v1/keys", json={"name": "a", "rights": rights})).json()
        for rights in (["create", "read", "change"], ["create", "read", "change"], ["change"])
    ]
    mine, other, blind = (service.client(each["key"]) for each in keys)
    body = {"url": receiver.url}
    for refused in ({**body, "all_accounts": True}, {**body, "account": keys[1]["account"]}):
        assert (await mine.post("/api/v1/webhooks", json=refused)).status_code == 403
    assert (await blind.post("/api/v1/webhooks", json=body)).status_code == 403
    for wrong in ("https://s.example.org/x", "ftp://example.org", "https://example.org/" + "x" * 2_048):
        assert (await api.post("/api/v1/webhooks", json={"url": wrong})).status_code == 422
    made = (await mine.post("/api/v1/webhooks", json=body)).json()
    path = f"/api/v1/webhooks/{made['id']}"
    assert (await other.get(path)).status_code == 404
    assert (await other.get("/api/v1/webhooks")).json()["webhooks"] == []
    assert (await api.get(path)).json()["account"] == keys[0]["account"]

    receiver.answer = lambda received: b"HTTP/1.1 500 Oh\r\n\r\n"
    links = [
        (await who.post("/api/v1/links", json={"url": "https://example.org/"})).json()["code"]
        for who in (other, mine)
    ]

    async def attempts() -> list[tuple[str, str]]:
        found = (await mine.get(f"{path}/deliveries")).json()["deliveries"]
        return [(each["code"], each["outcome"]) for each in found if each["attempts"]]

    await until(attempts)
    assert await attempts() == [(links[1], "the receiver answers 500")]
    receiver.answer = lambda received: OK
    rotated = (await mine.post(f"{path}/rotate")).json()
    assert rotated["secret"] != made["secret"]
    (waiting,) = (await mine.get(f"{path}/deliveries?state=waiting")).json()["deliveries"]
    replayed = await mine.post(f"{path}/replay", json={"message": waiting["id"]})
    assert replayed.json() == {"replayed": 1, "complete": True, "partial": None}

    async def is_sent() -> bool:
        return bool((await mine.get(f"{path}/deliveries?state=sent")).json()["deliveries"])

    await until(is_sent)
    await until(lambda: receiver.received[-1].headers["webhook-signature"].count("v1,") == 2)
    for secret in (made["secret"], rotated["secret"]):
        receiver.received[-1].verify(secret)
    assert (await mine.delete(path)).status_code == 204
    assert (await mine.get(path)).status_code == 404
