"""`snapurl webhooks` against a running service and a receiver."""

from __future__ import annotations

import pytest

from snapurl.messages import USUAL
from snapurl.webhooks import delivery
from tests.integration.http.service import Service
from tests.integration.http.test_links_command import Finished, Say, run
from tests.support.receiver import OK, Receiver
from tests.support.waits import until

NOBODY = "wh_0000000000000000"
NO_MESSAGE = "msg_" + "0" * 32


@pytest.fixture
def say(service: Service) -> Say:
    """Returns `run` of `snapurl webhooks` with the address of the shared service and its admin key."""

    async def run_here(*words: str, columns: int = 160) -> Finished:
        environ = {"SNAPURL_URL": service.workers[0].url, "SNAPURL_API_KEY": service.admin_key}
        return await run({"COLUMNS": str(columns), **environ}, *words, command="webhooks")

    return run_here


async def test_a_webhook_is_made_tried_changed_and_deleted(say: Say, receiver: Receiver) -> None:
    """Each command does over the API what it says. The secrets that it shows, each once, verify what is sent."""
    made = await say("create", receiver.url, "--note", "for the shop")
    assert (made.code, made.err) == (0, "")
    webhook = made.document
    webhook_id, secret = webhook["id"], webhook["secret"]
    shown = await say("show", webhook_id)
    assert shown.document == {
        name: value for name, value in webhook.items() if name not in ("secret", "complete", "partial")
    }
    assert (shown.document["events"], shown.document["note"]) == (list(USUAL), "for the shop")

    tried = await say("test", webhook_id)
    assert (tried.code, tried.out) == (0, f"{receiver.received[0].message_id}: taken\n")
    assert receiver.received[0].verify(secret)["data"] == {"webhook": webhook_id}
    receiver.answer = lambda received: b"HTTP/1.1 500 Oh\r\n\r\n"
    tried = await say("test", webhook_id)
    assert (tried.code, tried.out) == (1, f"{receiver.received[1].message_id}: the receiver answers 500\n")
    receiver.answer = lambda received: OK

    rotated = await say("rotate", webhook_id, "--text")
    said = dict(line.split(maxsplit=1) for line in rotated.out.splitlines())
    assert (said["id"], rotated.err) == (webhook_id, "")
    assert (await say("test", webhook_id)).code == 0
    for each in (secret, said["secret"]):
        receiver.received[-1].verify(each)

    edited = await say("edit", webhook_id, "--event", "link.deleted", "--note", "", "--disable")
    now = edited.document
    assert (now["events"], now["note"], now["enabled"]) == (["link.deleted"], "", False)
    assert now["url"] == receiver.url
    listed = await say("list", "--text")
    row = next(line for line in listed.out.splitlines() if line.startswith(webhook_id))
    assert "switched off" in row
    every = await say("list")
    for hidden in (secret, said["secret"]):
        assert hidden not in listed.out + every.out + shown.out + edited.out
    refused = await say("test", webhook_id)
    assert (refused.code, refused.err) == (
        2, f"snapurl: {webhook_id} is disabled (switched off): enable it with `edit --enable`\n",
    )  # fmt: skip
    assert (await say("edit", webhook_id, "--enable")).document["enabled"] is True

    kept = await say("delete", webhook_id)
    assert (kept.code, kept.err) == (
        2, "snapurl: nothing was changed: without a terminal, confirm with --yes\n",
    )  # fmt: skip
    assert (await say("delete", webhook_id, "--yes")).out == f"Deleted {webhook_id}.\n"
    gone = await say("show", webhook_id)
    assert (gone.code, gone.err) == (1, "snapurl: There is no such webhook\n")


async def test_deliveries_are_listed_and_replayed(
    say: Say, service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given up is listed as such, and sent again: one message, or all of them."""
    monkeypatch.setattr(delivery, "DELAYS_S", ())
    webhook_id = (await say("create", receiver.url, "--event", "link.created")).document["id"]
    receiver.answer = lambda received: b"HTTP/1.1 500 Oh\r\n\r\n"
    codes = {(await service.shorten())["code"] for _ in range(3)}

    async def in_state(state: str) -> list[str]:
        found = await say("deliveries", webhook_id, "--state", state)
        return [each["code"] for each in found.document["deliveries"]]

    async def are(state: str, count: int) -> bool:
        return len(await in_state(state)) == count

    await until(lambda: are("dead", 3))
    assert set(await in_state("dead")) == codes
    assert len((await say("deliveries", webhook_id, "--limit", "2")).document["deliveries"]) == 2
    table = (await say("deliveries", webhook_id, "--text")).out
    heading, *rows = table.splitlines()
    assert heading.split() == ["id", "at", "type", "code", "state", "attempts", "outcome"]
    assert {row.split()[4] for row in rows} == codes
    assert all("link.created" in row and "dead" in row and "answers 500" in row for row in rows)
    narrow = (await say("deliveries", webhook_id, "--text", columns=60)).out
    assert all(row.split()[0] in narrow for row in rows), "an id is never cut: replay needs it"

    receiver.answer = lambda received: OK
    one = rows[0].split()[0]
    assert (await say("replay", webhook_id, one)).out == "1 message is sent again.\n"
    await until(lambda: are("sent", 1))
    assert (await say("replay", webhook_id)).out == "2 messages are sent again.\n"
    await until(lambda: are("sent", 3))
    assert (await say("replay", webhook_id)).out == "0 messages are sent again.\n"
    assert [each.message_id for each in receiver.received].count(one) == 2
    missing = await say("replay", webhook_id, NO_MESSAGE)
    assert (missing.code, missing.err) == (1, "snapurl: The webhook has no such message\n")


@pytest.mark.parametrize(
    ("words", "exit_code", "line"),
    [
        (("create",), 2, "Missing argument 'URL'"),
        (("create", "ftp://example.org/"), 1, "url: "),
        (("create", "https://example.org/", "--event", "link.made"), 2, "'link.made' is not one of"),
        (("create", "https://example.org/", "--event", "link.created", "--event", "link.created"), 1, "events: "),
        (("create", "https://example.org/", "--account", "acc_0000000000"), 1, "account: "),
        (
            ("create", "https://example.org/", "--account", "acc_0000000000", "--all-accounts"),
            1,
            "account: must be left out with all_accounts",
        ),
        (("show", NOBODY), 1, "There is no such webhook"),
        (("show", "a/b"), 1, "There is no such webhook"),
        (("edit", NOBODY), 2, "name what to change"),
        (("edit", NOBODY, "--disable"), 1, "There is no such webhook"),
        (("rotate", NOBODY), 1, "There is no such webhook"),
        (("test", NOBODY), 1, "There is no such webhook"),
        (("delete", NOBODY, "--yes"), 1, "There is no such webhook"),
        (("deliveries", NOBODY), 1, "There is no such webhook"),
        (("deliveries", NOBODY, "--limit", "0"), 2, "0 is not in the range"),
        (("deliveries", NOBODY, "--state", "lost"), 2, "'lost' is not one of"),
        (("replay", NOBODY), 1, "There is no such webhook"),
        (("replay", NOBODY, "msg_x"), 1, "message: "),
    ],
)  # fmt: skip
async def test_a_refusal_is_one_line(say: Say, words: tuple[str, ...], exit_code: int, line: str) -> None:
    """A wrong call exits with 2, a refusal of the service with 1; both say in one line what is wrong."""
    said = await say(*words)
    assert (said.code, said.out) == (exit_code, "")
    assert said.err.startswith("snapurl: ") and line in said.err and said.err.count("\n") == 1


async def test_a_key_without_rights_is_refused(say: Say, service: Service, receiver: Receiver) -> None:
    """A webhook tells what its maker may read, so making one takes the rights to read and to change; other
    accounts take an admin key. A key of another account does not see it."""
    url = service.workers[0].url
    webhook_id = (await say("create", receiver.url)).document["id"]
    for rights, words in (
        (("create",), ("list",)),
        (("create", "read"), ("create", receiver.url)),
        (("create", "change"), ("create", receiver.url)),
        (("create", "read", "change"), ("create", receiver.url, "--all-accounts")),
    ):
        key = await service.key(*rights)
        said = await run({"SNAPURL_URL": url, "SNAPURL_API_KEY": key}, *words, command="webhooks")
        assert (said.code, said.out) == (1, ""), (rights, words)
        assert said.err.startswith("snapurl: This API key may not do that") and said.err.count("\n") == 1
    theirs = {"SNAPURL_URL": url, "SNAPURL_API_KEY": await service.key("create", "read", "change")}
    for words in (("show",), ("rotate",), ("edit", "--disable"), ("delete", "--yes"), ("replay",), ("test",)):
        said = await run(theirs, *words, webhook_id, command="webhooks")
        assert (said.code, said.err) == (1, "snapurl: There is no such webhook\n"), words
    assert (await run(theirs, "list", command="webhooks")).document["webhooks"] == []
