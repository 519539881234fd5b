"""One attempt to deliver a message: what a receiver gets, and what its answer comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from snapurl import outbound
from snapurl.domains import Domains
from snapurl.messages import SECRETS_OVERLAP, Kind, Message, MessageState, Webhook
from snapurl.webhooks import delivery
from snapurl.webhooks.delivery import DELAYS_S, RETRY_AFTER_S_MAX, Deliverer
from snapurl.webhooks.service import new_secret
from tests.support.receiver import Receiver, receiving
from tests.support.waits import unless_hung

NOW = datetime.now(UTC)
OLD, NEW = new_secret(), new_secret()
MESSAGE = Message(
    1, "msg_1", "wh_1", "", Kind.TEST, NOW, {"webhook": "wh_1"}, MessageState.WAITING, 0, NOW, None, None, ""
)  # fmt: skip

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


def webhook(url: str, rotated_at: datetime | None = None) -> Webhook:
    return Webhook("wh_1", 1, "", url, (Kind.TEST,), "", (NEW, OLD), rotated_at, NOW, "")


def deliverer(resolve: outbound.Resolve = outbound.resolve, now: datetime = NOW) -> Deliverer:
    """Returns one that may connect to 127.0.0.1 alone."""
    domains = Domains.of("https://s.example.org")
    return Deliverer(domains, lambda: now, resolve, lambda address: address == "127.0.0.1")


async def test_a_receiver_can_verify_with_either_secret_for_a_day(receiver: Receiver) -> None:
    """After a rotation both secrets verify; a day later only the new one does."""
    now = datetime.now(UTC)  # a receiver refuses what is minutes old
    outcome = await deliverer(now=now).deliver(webhook(receiver.url, now - timedelta(hours=23)), MESSAGE)
    assert (outcome.state, outcome.status) == (MessageState.SENT, 204)
    for secret in (OLD, NEW):
        assert receiver.received[0].verify(secret)["data"] == {"webhook": "wh_1"}
    assert receiver.received[0].message_id == "msg_1"
    await deliverer(now=now).deliver(webhook(receiver.url, now - SECRETS_OVERLAP), MESSAGE)
    receiver.received[1].verify(NEW)
    with pytest.raises(WebhookVerificationError):
        receiver.received[1].verify(OLD)


@pytest.mark.parametrize(
    ("answer", "state", "status", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nnot read to its end", MessageState.SENT, 200, "taken"),
        (INTERIM + b"HTTP/1.1 200 OK\r\n\r\n", MessageState.SENT, 200, "taken"),
        (INTERIM, MessageState.WAITING, None, "closes the connection"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", MessageState.WAITING, 500, "answers 500"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", MessageState.WAITING, 302, "not followed"),
        (b"HTTP/1.1 410 Gone\r\n\r\n", MessageState.DEAD, 410, "no more"),
        (b"", MessageState.WAITING, None, "closes the connection"),
        (b"SSH-2.0-OpenSSH\r\n", MessageState.WAITING, None, "as a web server"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9_999, MessageState.WAITING, None, "as a web server"),
    ],
)  # fmt: skip
async def test_only_2xx_is_success(
    receiver: Receiver, answer: bytes, state: MessageState, status: int | None, says: str
) -> None:
    """What is no 2xx is tried again, except 410; redirects are not followed, what comes before an answer is
    passed over, and the head of an answer is bounded."""
    receiver.answer = lambda received: answer
    outcome = await unless_hung(deliverer().deliver(webhook(receiver.url), MESSAGE))
    assert (outcome.state, outcome.status, outcome.is_gone) == (state, status, status == 410)
    assert says in outcome.answer
    assert len(receiver.received) == 1


async def test_a_message_is_given_up_after_about_a_day(receiver: Receiver) -> None:
    """The delays grow to a day in all; a receiver may ask for more, within a bound; the last attempt is the end."""
    receiver.answer = lambda received: b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\n\r\n"
    waits = [
        (await deliverer().deliver(webhook(receiver.url), replace(MESSAGE, attempts=made))).wait_s
        for made in range(len(DELAYS_S))
    ]
    assert waits[:2] == [120, 120]
    assert 0.8 < sum(waits) / 86_400 < 1.2
    receiver.answer = lambda received: (
        b"HTTP/1.1 429 Slowly\r\nRetry-After: Tue, 31 Dec 2999 23:59:59 GMT\r\n\r\n"
    )
    outcome = await deliverer().deliver(webhook(receiver.url), MESSAGE)
    assert outcome.wait_s == RETRY_AFTER_S_MAX
    outcome = await deliverer().deliver(webhook(receiver.url), replace(MESSAGE, attempts=len(DELAYS_S)))
    assert outcome.state is MessageState.DEAD


async def test_nothing_inside_is_reached(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver with an address that is not allowed gets nothing, nor does one whose name changes its address
    after the check; nor is a silent one waited for without end."""
    port = receiver.url.partition("127.0.0.1:")[2]
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"]])

    async def lying(host: str, port: int) -> Sequence[str]:
        return next(answers)

    named = webhook(f"http://rebinding.example:{port}")
    assert (await deliverer(lying).deliver(named, MESSAGE)).is_sent
    for _ in range(2):
        outcome = await deliverer(lying).deliver(named, MESSAGE)
        assert outcome.answer == "the receiver is not on the public Internet"
    assert (await deliverer().deliver(webhook("http://127.0.0.2:1/"), MESSAGE)).state is MessageState.WAITING
    assert len(receiver.received) == 1

    monkeypatch.setattr(delivery, "ATTEMPT_S_MAX", 0.05)
    receiver.answer = lambda received: None
    outcome = await unless_hung(deliverer().deliver(webhook(receiver.url), MESSAGE))
    assert "has not answered within" in outcome.answer
