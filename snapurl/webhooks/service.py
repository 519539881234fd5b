"""Creates, changes and deletes webhooks, and asks for messages to be sent again.

A shard writes messages for the webhooks that it knows. So a webhook is stored first, and then every shard is told
of it, before the answer: what is changed after the answer is told. A shard that does not answer meanwhile is
named in the answer. It learns of the webhook from the sender, within seconds after it answers again.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from snapurl.codes import random_text
from snapurl.errors import NoSuchMessage, NoSuchWebhook, TooManyWebhooks, Unavailable
from snapurl.messages import Message, MessageState, Webhook
from snapurl.model import RowKey
from snapurl.store.webhooks import WebhookStore

SECRET_BYTES = 32
ID_CHARS = 16
ID_PATTERN = re.compile(f"wh_[0-9A-Za-z]{{{ID_CHARS}}}")
WEBHOOKS_OF_ACCOUNT_MAX = 10
WEBHOOKS_MAX = 1_000
ATTEMPTS = 32  # at a new id: with half of the shards down, none succeeds once in four billion times
SWITCHED_OFF = "switched off"

log = logging.getLogger("snapurl.webhooks")


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Changed:
    """A webhook as it is now, and the shards that do not know it yet."""

    webhook: Webhook
    silent: tuple[str, ...]


class WebhookService:
    """Raises Unavailable and OutcomeUnknown; NoSuchWebhook for one that is not there, or not of `account`.

    `account` None is whoever may see all.
    """

    def __init__(self, store: WebhookStore, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def create(
        self, account: str, url: str, kinds: Sequence[str], note: str, created_by: str
    ) -> Changed:
        """Creates a webhook of an account, or of ALL_ACCOUNTS. Raises TooManyWebhooks.

        If several are created at once, there may be a few more than the bound.
        """
        everyone, _ = await self._store.all()
        if (
            len(everyone) >= WEBHOOKS_MAX
            or sum(each.account == account for each in everyone) >= WEBHOOKS_OF_ACCOUNT_MAX
        ):
            raise TooManyWebhooks()
        for attempt in range(ATTEMPTS):
            webhook_id = f"wh_{random_text(ID_CHARS)}"
            webhook = Webhook(
                webhook_id,
                1,
                account,
                url,
                tuple(kinds),
                note,
                (new_secret(),),
                None,
                self._clock(),
                created_by,
            )
            try:
                if await self._store.add(webhook):
                    log.info("webhook %s was created by %s", webhook_id, created_by or "the operator")
                    return await self._publish(webhook)
            except Unavailable:  # another id belongs to another shard
                if attempt == ATTEMPTS - 1:
                    raise
        raise Unavailable("no free id of a webhook was found")

    async def get(self, webhook_id: str, account: str | None) -> Webhook:
        """Returns a webhook."""
        found = await self._store.find(webhook_id) if ID_PATTERN.fullmatch(webhook_id) else None
        if found is None or account not in (None, found.account):
            raise NoSuchWebhook()
        return found

    async def all(self, account: str | None) -> tuple[list[Webhook], tuple[str, ...]]:
        """Returns the webhooks, newest first, and the shards whose webhooks are missing."""
        return await self._store.all(account)

    async def change(
        self,
        webhook_id: str,
        account: str | None,
        by: str,
        *,
        url: str | None = None,
        kinds: Sequence[str] | None = None,
        note: str | None = None,
        enabled: bool | None = None,
    ) -> Changed:
        """Changes what is not None."""
        await self.get(webhook_id, account)
        why = None if enabled is None else "" if enabled else SWITCHED_OFF
        changed = await self._store.change(webhook_id, url=url, kinds=kinds, note=note, disabled_why=why)
        return await self._changed(changed, "changed", by)

    async def rotate(self, webhook_id: str, account: str | None, by: str) -> Changed:
        """Gives a webhook another secret. For a day both sign."""
        await self.get(webhook_id, account)
        changed = await self._store.change(webhook_id, secret=new_secret())
        return await self._changed(changed, "given another secret", by)

    async def disable(self, webhook_id: str, why: str) -> None:
        """Disables a webhook because of what its receiver does."""
        changed = await self._store.change(webhook_id, disabled_why=why)
        if changed is not None:
            log.warning("webhook %s is disabled: %s", webhook_id, why)
            await self._publish(changed)

    async def delete(self, webhook_id: str, account: str | None, by: str) -> None:
        """Deletes a webhook and, in the background, its messages."""
        await self.get(webhook_id, account)
        await self._store.change(webhook_id, delete=True)
        log.info("webhook %s was deleted by %s", webhook_id, by or "the operator")

    async def test(self, webhook_id: str, account: str | None) -> str:
        """Sends a message that tells of nothing. Returns its id."""
        webhook = await self.get(webhook_id, account)
        message_id = f"msg_{secrets.token_hex(16)}"
        await self._store.add_test(webhook.webhook_id, message_id, {"webhook": webhook.webhook_id})
        return message_id

    async def deliveries(
        self,
        webhook_id: str,
        account: str | None,
        limit: int,
        before: RowKey | None = None,
        state: MessageState | None = None,
    ) -> tuple[list[Message], tuple[str, ...]]:
        """Returns up to `limit` messages, newest first, and the shards whose messages are missing."""
        webhook = await self.get(webhook_id, account)
        return await self._store.page(webhook.webhook_id, limit, before, state)

    async def replay(self, webhook_id: str, account: str | None, message_id: str) -> None:
        """Sends a message again. Raises NoSuchMessage."""
        webhook = await self.get(webhook_id, account)
        if not await self._store.replay(webhook.webhook_id, message_id):
            raise NoSuchMessage()

    async def replay_dead(self, webhook_id: str, account: str | None) -> tuple[int, bool, tuple[str, ...]]:
        """Sends some messages again that were given up: a bounded number, so repeat it.

        Returns how many, whether none was found to be left, and the shards whose messages are left.
        """
        webhook = await self.get(webhook_id, account)
        return await self._store.replay_dead(webhook.webhook_id)

    async def _changed(self, changed: Webhook | None, what: str, by: str) -> Changed:
        if changed is None:
            raise NoSuchWebhook()
        log.info("webhook %s was %s by %s", changed.webhook_id, what, by or "the operator")
        return await self._publish(changed)

    async def _publish(self, webhook: Webhook) -> Changed:
        return Changed(webhook, tuple(await self._store.watch_everywhere([webhook])))


def new_secret() -> str:
    """Returns a secret as Standard Webhooks has it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
