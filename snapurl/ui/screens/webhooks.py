"""Webhooks: the list, a new one, whose secret is shown once, and one with its messages."""

from __future__ import annotations

from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.errors import FieldError, Invalid, NoSuchMessage, SnapURLError
from snapurl.http.api.cursors import read_row_cursor, write_row_cursor
from snapurl.http.api.webhooks import require_reading, webhook_account
from snapurl.http.auth import owner_filter
from snapurl.http.schema.requests import check
from snapurl.http.schema.webhooks import WebhookChange, WebhookDraft
from snapurl.messages import USUAL, Kind, MessageState, Webhook
from snapurl.model import RowKey
from snapurl.ui.call import Call
from snapurl.ui.forms import errors_by_field, sentence
from snapurl.ui.screens.accounts import choices

PAGE_MESSAGES = 50
EVENTS = (
    (Kind.CREATED, "Created"),
    (Kind.UPDATED, "Changed"),
    (Kind.DISABLED, "Switched off"),
    (Kind.DELETED, "Deleted"),
    (Kind.RESTORED, "Restored"),
    (Kind.EXPIRED, "Expired"),
    (Kind.EXHAUSTED, "All clicks used up"),
    (Kind.CLICKS, "Clicks, each minute"),
)
ALL_LINKS = "all"  # the choice of an admin that stands for the links of all accounts
STATES = ((MessageState.WAITING, "Waiting"), (MessageState.SENT, "Sent"), (MessageState.DEAD, "Given up"))


# -- the list ----------------------------------------------------------------------------------------------------


async def show(call: Call) -> HTTPResponse:
    return await _list(call)


async def create(call: Call) -> HTTPResponse:
    """Creates a webhook. Its answer is the only page that shows the secret, besides that of the next one."""
    body = _typed(call)
    match call.form.get("account", ""):
        case "":
            pass
        case account if account == ALL_LINKS:
            body["all_accounts"] = True
        case account:
            body["account"] = account
    draft = check(WebhookDraft, body, call.context.rules())
    account = await webhook_account(call.context, draft)
    made = await call.services.webhooks.create(
        account, draft.url, draft.events or USUAL, draft.note, call.user.key_id
    )
    return await _one(call, made.webhook, secret=made.webhook.secrets[0], silent=made.silent)


async def create_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    return await _list(call, refusal)


async def _list(call: Call, refusal: SnapURLError | None = None) -> HTTPResponse:
    found, silent = await call.services.webhooks.all(owner_filter(call.user))
    accounts = (await choices(call))[0] if call.user.is_admin else []
    errors = errors_by_field(refusal)
    return call.page(
        "webhooks.html",
        refusal.status if refusal else 200,
        webhooks=found,
        silent=silent,
        accounts=accounts,
        names={each.account_id: each.name for each in accounts},
        events=EVENTS,
        typed=dict(call.form) if refusal else {kind.value: "on" for kind in USUAL},
        errors=errors,
        fault=sentence(refusal) if refusal and not errors else "",
        is_deleted="deleted" in call.query,
    )


def _typed(call: Call) -> dict[str, object]:
    """Returns the fields of a webhook that were typed or ticked."""
    return {
        "url": call.form.get("url", "").strip(),
        "events": [kind.value for kind, _ in EVENTS if kind.value in call.form],
        "note": call.form.get("note", "").strip(),
    }


# -- one webhook -------------------------------------------------------------------------------------------------


async def one(call: Call) -> HTTPResponse:
    return await _one(call, await _find(call))


async def change(call: Call) -> HTTPResponse:
    webhook = await _find(call)
    require_reading(call.context)
    draft = check(WebhookChange, _typed(call), call.context.rules())
    await call.services.webhooks.change(
        webhook.webhook_id,
        owner_filter(call.user),
        call.user.key_id,
        url=draft.url,
        kinds=draft.events,
        note=draft.note,
    )
    return call.go(f"{_path(webhook)}?changed=1")


async def change_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    return await _one(call, await _find(call), refusal)


async def switch(call: Call) -> HTTPResponse:
    """Enables or disables a webhook."""
    webhook = await _find(call)
    require_reading(call.context)
    await call.services.webhooks.change(
        webhook.webhook_id, owner_filter(call.user), call.user.key_id, enabled="enable" in call.form
    )
    return call.go(f"{_path(webhook)}?changed=1")


async def rotate(call: Call) -> HTTPResponse:
    """Gives a webhook another secret, and shows it."""
    webhook = await _find(call)
    require_reading(call.context)
    changed = await call.services.webhooks.rotate(
        webhook.webhook_id, owner_filter(call.user), call.user.key_id
    )
    return await _one(call, changed.webhook, secret=changed.webhook.secrets[0], silent=changed.silent)


async def test(call: Call) -> HTTPResponse:
    webhook = await _find(call)
    require_reading(call.context)
    await call.services.webhooks.test(webhook.webhook_id, owner_filter(call.user))
    return call.go(f"{_path(webhook)}?tested=1")


async def replay(call: Call) -> HTTPResponse:
    """Sends a message again, or some of those that were given up."""
    webhook = await _find(call)
    require_reading(call.context)
    account, message_id = owner_filter(call.user), call.form.get("message", "")
    if message_id:
        try:
            await call.services.webhooks.replay(webhook.webhook_id, account, message_id)
        except NoSuchMessage:
            raise Invalid(fields=(FieldError("/message", "is no longer in the log"),)) from None
        return call.go(f"{_path(webhook)}?replayed=1")
    replayed, is_complete, _ = await call.services.webhooks.replay_dead(webhook.webhook_id, account)
    return call.go(f"{_path(webhook)}?{urlencode({'replayed': replayed, 'left': int(not is_complete)})}")


async def confirm_delete(call: Call) -> HTTPResponse:
    return call.page("webhook_delete.html", webhook=await _find(call))


async def delete(call: Call) -> HTTPResponse:
    webhook = await _find(call)
    require_reading(call.context)
    await call.services.webhooks.delete(webhook.webhook_id, owner_filter(call.user), call.user.key_id)
    return call.go("/ui/webhooks?deleted=1")


async def _find(call: Call) -> Webhook:
    return await call.services.webhooks.get(call.path["webhook_id"], owner_filter(call.user))


def _path(webhook: Webhook) -> str:
    return f"/ui/webhooks/{webhook.webhook_id}"


async def _one(
    call: Call,
    webhook: Webhook,
    refusal: SnapURLError | None = None,
    *,
    secret: str = "",
    silent: tuple[str, ...] = (),
) -> HTTPResponse:
    state = next((each for each, _ in STATES if each == call.query.get("state")), None)
    cursor = call.query.get("cursor")
    messages, missing = await call.services.webhooks.deliveries(
        webhook.webhook_id,
        owner_filter(call.user),
        PAGE_MESSAGES + 1,
        read_row_cursor(cursor) if cursor else None,
        state,
    )
    more = ""
    if len(messages) > PAGE_MESSAGES:
        last = messages[PAGE_MESSAGES - 1]
        rest = {"cursor": write_row_cursor(RowKey(last.at, last.message_id)), "state": state or ""}
        more = f"{_path(webhook)}?{urlencode(rest)}"
    errors = errors_by_field(refusal)
    ticked = dict.fromkeys(webhook.kinds, "on")
    return call.page(
        "webhook.html",
        refusal.status if refusal else 200,
        webhook=webhook,
        secret=secret,
        silent=silent,
        messages=messages[:PAGE_MESSAGES],
        missing=missing,
        more=more,
        state=state,
        states=STATES,
        events=EVENTS,
        typed=dict(call.form) if refusal else {"url": webhook.url, "note": webhook.note, **ticked},
        errors=errors,
        fault=sentence(refusal) if refusal and not errors.keys() & {"url", "events", "note"} else "",
        notice=_notice(call),
    )


def _notice(call: Call) -> str:
    """Returns what has just been done, as the address of the page says."""
    if "tested" in call.query:
        return "The test message is on its way. Load the page again to see what came of it."
    if "changed" in call.query:
        return "Saved."
    if "replayed" in call.query:
        return (
            "Some are sent again. Press the button again for the others."
            if call.query.get("left") == "1"
            else ("What you asked for is sent again.")
        )
    return ""
