"""The samples of docs/use/webhooks.md verify what is sent, and refuse what somebody else has changed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from snapurl.domains import Domains
from snapurl.messages import Kind, Message, MessageState, Webhook
from snapurl.webhooks.delivery import Deliverer
from snapurl.webhooks.service import new_secret
from tests.support.npm_packages import installed
from tests.support.receiver import Received, receiving
from tests.support.requirements import program, requires

PAGE = Path(__file__).parents[2] / "docs/use/webhooks.md"
SECRET = new_secret()


def sample(language: str) -> str:
    """Returns a sample of the page, with our secret."""
    (found,) = re.findall(
        rf"^    ```{language}\n(.*?)^    ```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    text = re.sub("^    ", "", str(found), flags=re.MULTILINE)
    assert "whsec_…" in text
    return text.replace("whsec_…", SECRET)


@pytest.fixture
async def received() -> AsyncIterator[Received]:
    """Yields a message as it arrives."""
    now = datetime.now(UTC)
    message = Message(
        1, "msg_1", "wh_1", "", Kind.TEST, now, {"webhook": "wh_1", "ü": "\n"}, MessageState.WAITING, 0, now, None,
        None, "",
    )  # fmt: skip
    async with receiving() as receiver:
        webhook = Webhook("wh_1", 1, "", receiver.url, (Kind.TEST,), "", (new_secret(), SECRET), now, now, "")
        deliverer = Deliverer(Domains.of("https://s.example.org"), lambda: now, is_allowed=lambda _: True)
        assert (await deliverer.deliver(webhook, message)).is_sent
        yield receiver.received[0]


def test_the_one_in_python(received: Received) -> None:
    """It returns the event, or raises."""
    for body in (received.body, received.body.replace(b"wh_1", b"wh_2")):
        names = {"request": SimpleNamespace(body=body, headers=received.headers)}
        if body == received.body:
            exec(sample("python"), names)
            assert names["event"] == received.told
        else:
            with pytest.raises(WebhookVerificationError):
                exec(sample("python"), names)


@pytest.mark.long
@requires("node")
def test_the_one_in_node(received: Received, tmp_path: Path) -> None:
    """It returns the event, or throws."""
    packages = installed()
    (tmp_path / "node_modules").symlink_to(packages)
    imports, _, rest = sample("js").partition("\n")
    script = tmp_path / "sample.mjs"
    script.write_text(
        f"{imports}\nconst [rawBody, headers] = JSON.parse(process.argv[2]);\nconst request = {{ headers }};\n"
        f"{rest}\nconsole.log(JSON.stringify(event));\n"
    )
    node = program("node")
    assert node is not None

    def run(body: bytes) -> subprocess.CompletedProcess[str]:
        told = json.dumps([body.decode(), received.headers])
        return subprocess.run([node, script, told], capture_output=True, text=True, check=False)

    verified = run(received.body)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout) == received.told
    forged = run(received.body.replace(b"wh_1", b"wh_2"))
    assert forged.returncode != 0 and "WebhookVerificationError" in forged.stderr
