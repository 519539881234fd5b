"""Webhooks over HTTP: who may do what, and what the receiver gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from snapurl.config import Settings
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.webhooks import WebhookStore
from snapurl.tasks import cancel_and_wait
from snapurl.webhooks import sender as sender_module
from snapurl.webhooks.sender import make_sender
from tests.integration.http.service import PUBLIC_URL, Service
from tests.support.receiver import Receiver, receiving
from tests.support.waits import until


@pytest.fixture
async def receiver(
    service: Service, shared_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Receiver]:
    """A receiver, while messages of the shared service are sent."""
    for name in ("COMPARE_S", "POLL_S"):
        monkeypatch.setattr(sender_module, name, 0.05)
    settings = shared_settings.model_copy(update={"webhook_networks": "127.0.0.0/8", "base_url": PUBLIC_URL})
    shards = await Shards.connect(settings)
    store = WebhookStore(shards, Router(shards, settings.busy_wait_ms))
    sender = make_sender(settings, store, lambda: True, asyncio.get_running_loop().time)
    sending = asyncio.create_task(sender.run())
    async with receiving() as found:
        yield found
    await cancel_and_wait(sending)
    await shards.close()


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
