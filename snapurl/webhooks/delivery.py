"""One attempt to deliver a message: signs it, sends it, and says what came of it and what is to be done next.

Signatures and headers are those of Standard Webhooks. Only 2xx is success. 410 means that the receiver wants
nothing more. Redirects are not followed. Everything else is tried again on a schedule of about a day, at which
the delays are stretched or cut by up to a tenth, or later if the receiver says so with Retry-After.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from standardwebhooks.webhooks import Webhook as Signer

from snapurl.domains import Domains
from snapurl.messages import Message, MessageState, Webhook
from snapurl.outbound import (
    Resolve,
    TargetRefused,
    TargetUnreachable,
    exchange,
    has_head,
    is_public,
    resolve,
)

ATTEMPT_S_MAX = 15.0  # of one attempt, from the look-up of the name to the head of the answer
ANSWER_BYTES_MAX = 16_384  # of an answer that are read: its head
DELAYS_S = (
    5,
    60,
    300,
    1_800,
    7_200,
    18_000,
    25_200,
    32_400,
)  # after each attempt that failed; then it is dead
RETRY_AFTER_S_MAX = 3_600  # that a receiver may ask for
GONE = 410
_SECONDS = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What came of an attempt. A message that waits on is due again in `wait_s` seconds.

    `is_gone`: the receiver wants nothing more.
    """

    state: MessageState
    wait_s: float
    status: int | None
    answer: str
    is_gone: bool = False

    @property
    def is_sent(self) -> bool:
        return self.state is MessageState.SENT


class Deliverer:
    """Delivers messages. `is_allowed` says which addresses may be connected to."""

    def __init__(
        self,
        domains: Domains,
        clock: Callable[[], datetime],
        resolve: Resolve = resolve,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._domains = domains
        self._clock = clock
        self._resolve = resolve
        self._is_allowed = is_allowed

    async def deliver(self, webhook: Webhook, message: Message) -> AttemptResult:
        """Makes one attempt."""
        body = message.body(self._domains)
        try:
            async with asyncio.timeout(ATTEMPT_S_MAX):
                answer = await exchange(
                    "POST",
                    webhook.url,
                    self._headers(webhook, message, body),
                    body.encode(),
                    bytes_max=ANSWER_BYTES_MAX,
                    is_enough=lambda found, _: has_head(found),
                    resolve=self._resolve,
                    is_allowed=self._is_allowed,
                )
        except (TargetRefused, TargetUnreachable) as fault:
            return _failed(message, None, f"the receiver {fault}")
        except TimeoutError:
            return _failed(message, None, f"the receiver has not answered within {ATTEMPT_S_MAX:g} s")
        status = answer.status
        if 200 <= status < 300:
            return AttemptResult(MessageState.SENT, 0.0, status, "taken")
        if status == GONE:
            return AttemptResult(
                MessageState.DEAD, 0.0, status, "the receiver wants no more messages", is_gone=True
            )
        what = "redirects, which is not followed" if 300 <= status < 400 else f"answers {status}"
        return _failed(
            message, status, f"the receiver {what}", self._asked_s(answer.headers.get("retry-after", ""))
        )

    def _headers(self, webhook: Webhook, message: Message, body: str) -> dict[str, str]:
        at = self._clock()
        signatures = [
            Signer(secret).sign(message.message_id, at, body) for secret in webhook.signing_secrets(at)
        ]
        return {
            "User-Agent": "SnapURL (webhook)",
            "Content-Type": "application/json",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _asked_s(self, retry_after: str) -> float:
        """Returns after how many seconds the receiver wants to be asked again: RETRY_AFTER_S_MAX at most."""
        text = retry_after.strip()
        if _SECONDS.fullmatch(text):
            return min(float(text), RETRY_AFTER_S_MAX)
        try:
            wait_s = (parsedate_to_datetime(text) - self._clock()).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return min(max(0.0, wait_s), RETRY_AFTER_S_MAX)


def _failed(message: Message, status: int | None, answer: str, asked_s: float = 0.0) -> AttemptResult:
    """Returns what an attempt that failed comes to."""
    if message.attempts >= len(DELAYS_S):
        return AttemptResult(MessageState.DEAD, 0.0, status, answer)
    delay_s = DELAYS_S[message.attempts] * random.uniform(0.9, 1.1)
    return AttemptResult(MessageState.WAITING, max(delay_s, asked_s), status, answer)
