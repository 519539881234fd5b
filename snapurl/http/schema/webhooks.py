"""Bodies about webhooks: their schemas, and the functions that build the answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from snapurl.codes import split_key
from snapurl.http.schema.requests import AccountId, Body, Target
from snapurl.http.schema.responses import PARTIAL, Answer, missing, moment
from snapurl.messages import ALL_ACCOUNTS, CHOICE, Message, MessageState, Webhook

URL_CHARS_MAX = 2_048
NOTE_CHARS_MAX = 200
MESSAGE_ID_PATTERN = "^msg_[0-9a-f]{32}$"

KindName = Literal[
    "link.created",
    "link.updated",
    "link.disabled",
    "link.deleted",
    "link.restored",
    "link.expired",
    "link.max_clicks_reached",
    "link.clicks",
]


def _short(url: str) -> str:
    if len(url) > URL_CHARS_MAX:
        raise ValueError(f"must have at most {URL_CHARS_MAX} characters")
    return url


def _unique(kinds: list[KindName]) -> list[KindName]:
    if len(set(kinds)) != len(kinds):
        raise ValueError("must not repeat an event")
    return kinds


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have printable characters")
    return text


Url = Annotated[
    Target,
    AfterValidator(_short),
    Field(description="Where messages are sent: http or https, with a port of 80, 443, or 1024 and above."),
]
Events = Annotated[
    list[KindName],
    Field(max_length=len(CHOICE)),
    AfterValidator(_unique),
    Field(
        min_length=1,
        description="What it is told of. Left out: all but `link.clicks`, which tells of the clicks of each link "
        "once a minute at most.",
        examples=[["link.created", "link.deleted"]],
        json_schema_extra={"uniqueItems": True},
    ),
]
Note = Annotated[
    str, AfterValidator(_printable), Field(max_length=NOTE_CHARS_MAX, description="A text for people.")
]


MessageId = Annotated[
    str, Field(pattern=MESSAGE_ID_PATTERN, examples=["msg_5f0c6d0a9f6e4d8e8f2c7a1b3d5e7f90"])
]


class WebhookDraft(Body):
    """A webhook to be created."""

    url: Url
    events: Events | None = None
    account: AccountId | None = Field(
        None,
        description="The account whose links it is told of. Left out: that of the key. Only for admin keys.",
    )
    all_accounts: bool = Field(
        False, description="Whether it is told of the links of all accounts. Only for admin keys."
    )
    note: Note = ""


class WebhookChange(Body):
    """What is to be changed of a webhook."""

    url: Url | None = None
    events: Events | None = None
    note: Note | None = None
    enabled: bool | None = None


class WebhookBody(Answer):
    """A webhook, without its secret."""

    id: str
    url: str = Field(json_schema_extra={"format": "uri"})
    events: list[KindName]
    account: str | None = Field(
        description="Id of the account whose links it is told of; null: all accounts."
    )
    note: str
    enabled: bool
    disabled_at: datetime | None
    disabled_why: str | None = Field(description="Null while it is enabled.")
    created_at: datetime
    created_by: str | None = Field(description="Id of the key that made it; null: made on the command line.")
    rotated_at: datetime | None = Field(
        description="When it got its present secret; for a day after that the old one signs, too. Null: the first."
    )


class WebhookChanged(WebhookBody):
    """A webhook as it is now."""

    complete: bool = Field(
        description="False while a shard does not answer: its changes are told some seconds after it does."
    )
    partial: list[str] | None = Field(description=PARTIAL)


class WebhookSecret(WebhookChanged):
    """A webhook with a new secret."""

    secret: str = Field(description="What its messages are signed with. It is shown only this once.")


class WebhookList(Answer):
    """Webhooks, newest first."""

    webhooks: list[WebhookBody]
    complete: bool = Field(description="False while a shard does not answer: its webhooks are missing here.")
    partial: list[str] | None = Field(description=PARTIAL)


class Replay(Body):
    """What is to be sent again."""

    message: MessageId | None = Field(
        None, description="The id of a message. Left out: all that were given up."
    )


class Replayed(Answer):
    """What is sent again."""

    replayed: int = Field(ge=0, description="How many messages.")
    complete: bool = Field(
        description="Whether none that was given up is left. False: repeat the request, if a shard does not answer "
        "(`partial`), later."
    )
    partial: list[str] | None = Field(description=PARTIAL)


class DeliveryBody(Answer):
    """A message, and what became of it."""

    id: str = Field(description="As in the header `webhook-id`.")
    type: str
    code: str | None = Field(description="The link that it tells of; null for a test.")
    domain: str | None
    at: datetime = Field(description="When that happened which it tells of.")
    state: Literal["waiting", "sent", "dead"] = Field(
        description="`dead`: given up after all attempts failed."
    )
    attempts: int = Field(ge=0)
    next_attempt_at: datetime | None = Field(description="Null unless it waits.")
    last_attempt_at: datetime | None
    status: int | None = Field(description="HTTP status of the last answer; null: there was none.")
    outcome: str | None = Field(description="What came of the last attempt.")


class DeliveryPage(Answer):
    """Messages of a webhook, newest first."""

    deliveries: list[DeliveryBody]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    complete: bool = Field(description="False while a shard does not answer: its messages are missing here.")
    partial: list[str] | None = Field(description=PARTIAL)


class MessageSent(Answer):
    """A message that is on its way."""

    message: str = Field(description="Its id, as in the list of deliveries and in the header `webhook-id`.")


def webhook_body(webhook: Webhook) -> dict[str, Any]:
    """Returns a `WebhookBody`."""
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "events": list(webhook.kinds),
        "account": None if webhook.account == ALL_ACCOUNTS else webhook.account,
        "note": webhook.note,
        "enabled": webhook.is_enabled,
        "disabled_at": moment(webhook.disabled_at) if webhook.disabled_at else None,
        "disabled_why": webhook.disabled_why or None,
        "created_at": moment(webhook.created_at),
        "created_by": webhook.created_by or None,
        "rotated_at": moment(webhook.rotated_at) if webhook.rotated_at else None,
    }


def webhook_changed(webhook: Webhook, silent: Sequence[str], is_admin: bool) -> dict[str, Any]:
    """Returns a `WebhookChanged`."""
    return {**webhook_body(webhook), **missing(silent, is_admin)}


def webhook_list(webhooks: Sequence[Webhook], silent: Sequence[str], is_admin: bool) -> dict[str, Any]:
    """Returns a `WebhookList`."""
    return {"webhooks": list(map(webhook_body, webhooks)), **missing(silent, is_admin)}


def delivery_body(message: Message) -> dict[str, Any]:
    """Returns a `DeliveryBody`."""
    domain, code = split_key(message.code)
    waits = message.state is MessageState.WAITING
    return {
        "id": message.message_id,
        "type": message.kind,
        "code": code or None,
        "domain": domain or None,
        "at": moment(message.at),
        "state": message.state.value,
        "attempts": message.attempts,
        "next_attempt_at": moment(message.due_at) if waits else None,
        "last_attempt_at": moment(message.tried_at) if message.tried_at else None,
        "status": message.status,
        "outcome": message.answer or None,
    }
