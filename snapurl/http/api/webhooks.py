"""Handlers of webhooks. A key may see those of its account, an admin key all."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import FieldError, Forbidden, Invalid
from snapurl.http.api.keys import account_in_body, asked_page, next_cursor
from snapurl.http.auth import owner_filter, require
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error
from snapurl.http.schema.requests import check
from snapurl.http.schema.responses import missing
from snapurl.http.schema.webhooks import (
    Replay,
    WebhookChange,
    WebhookDraft,
    delivery_body,
    webhook_body,
    webhook_changed,
    webhook_list,
)
from snapurl.messages import ALL_ACCOUNTS, USUAL, MessageState
from snapurl.model import Right, RowKey


async def create_webhook(call: RequestContext) -> HTTPResponse:
    draft = check(WebhookDraft, call.value, call.rules())
    account = await webhook_account(call, draft)
    made = await call.services.webhooks.create(
        account, draft.url, draft.events or USUAL, draft.note, call.caller.key_id
    )
    call.headers["location"] = f"/api/v1/webhooks/{made.webhook.webhook_id}"
    body = webhook_changed(made.webhook, made.silent, call.caller.is_admin)
    return call.json_response({**body, "secret": made.webhook.secrets[0]}, 201)


async def webhook_account(call: RequestContext, draft: WebhookDraft) -> str:
    """Returns whose links a new webhook is told of. Raises Forbidden, Invalid, Unavailable."""
    require_reading(call)
    if draft.all_accounts and draft.account is not None:
        raise Invalid(fields=(FieldError("/account", "must be left out with all_accounts"),))
    names_other = draft.all_accounts or draft.account not in (None, call.caller.account)
    if names_other and not call.caller.is_admin:
        raise Forbidden("only an admin key may name another account")
    if draft.all_accounts:
        return ALL_ACCOUNTS
    if draft.account is not None:
        return (await account_in_body(call, draft.account)).account_id
    return call.caller.account


def require_reading(call: RequestContext) -> None:
    """Raises Forbidden unless the key may read links: that is what messages tell. The route asks for the other
    right."""
    require(call.caller, Right.READ)


async def list_webhooks(call: RequestContext) -> HTTPResponse:
    found, silent = await call.services.webhooks.all(owner_filter(call.caller))
    return call.json_response(webhook_list(found, silent, call.caller.is_admin))


async def read_webhook(call: RequestContext) -> HTTPResponse:
    found = await call.services.webhooks.get(call.id, owner_filter(call.caller))
    return call.json_response(webhook_body(found))


async def change_webhook(call: RequestContext) -> HTTPResponse:
    require_reading(call)
    draft = check(WebhookChange, call.value, call.rules())
    changed = await call.services.webhooks.change(
        call.id,
        owner_filter(call.caller),
        call.caller.key_id,
        url=draft.url,
        kinds=draft.events,
        note=draft.note,
        enabled=draft.enabled,
    )
    return call.json_response(webhook_changed(changed.webhook, changed.silent, call.caller.is_admin))


async def rotate_webhook(call: RequestContext) -> HTTPResponse:
    require_reading(call)
    changed = await call.services.webhooks.rotate(call.id, owner_filter(call.caller), call.caller.key_id)
    body = webhook_changed(changed.webhook, changed.silent, call.caller.is_admin)
    return call.json_response({**body, "secret": changed.webhook.secrets[0]})


async def delete_webhook(call: RequestContext) -> HTTPResponse:
    require_reading(call)
    await call.services.webhooks.delete(call.id, owner_filter(call.caller), call.caller.key_id)
    return HTTPResponse(None, 204, call.headers)


async def test_webhook(call: RequestContext) -> HTTPResponse:
    require_reading(call)
    message_id = await call.services.webhooks.test(call.id, owner_filter(call.caller))
    return call.json_response({"message": message_id}, 202)


async def list_deliveries(call: RequestContext) -> HTTPResponse:
    limit, before = asked_page(call)
    asked = call.query.get("state")
    if asked is not None and asked not in tuple(MessageState):
        raise query_error("state", f"must be one of {', '.join(MessageState)}")
    found, silent = await call.services.webhooks.deliveries(
        call.id, owner_filter(call.caller), limit + 1, before, MessageState(asked) if asked else None
    )
    ends = [RowKey(each.at, each.message_id) for each in found]
    page = {"deliveries": list(map(delivery_body, found[:limit])), "next_cursor": next_cursor(ends, limit)}
    return call.json_response({**page, **missing(silent, call.caller.is_admin)})


async def replay_messages(call: RequestContext) -> HTTPResponse:
    require_reading(call)
    message_id = check(Replay, call.value, call.rules()).message
    webhooks, account = call.services.webhooks, owner_filter(call.caller)
    if message_id is not None:
        await webhooks.replay(call.id, account, message_id)
        return call.json_response({"replayed": 1, **missing((), call.caller.is_admin)})
    replayed, complete, silent = await webhooks.replay_dead(call.id, account)
    left = {**missing(silent, call.caller.is_admin), "complete": complete}
    return call.json_response({"replayed": replayed, **left})
