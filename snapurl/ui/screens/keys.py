"""API keys: the list, a new one, whose secret is shown once, and revoking one."""

from __future__ import annotations

from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.errors import NoSuchKey, SnapURLError
from snapurl.http.api.cursors import read_row_cursor, write_row_cursor
from snapurl.http.api.keys import account_in_body
from snapurl.http.schema.keys import KeyDraft
from snapurl.http.schema.requests import check
from snapurl.model import ApiKey, Right, RowKey
from snapurl.ui.call import Call
from snapurl.ui.forms import errors_by_field
from snapurl.ui.screens.accounts import choices

PAGE_KEYS = 50
RIGHTS = (
    (Right.CREATE, "Create", "shorten URLs"),
    (Right.READ, "Read", "list links and see their clicks"),
    (Right.CHANGE, "Change", "edit and delete links"),
    (Right.ADMIN, "Admin", "everything, with all links and keys"),
)


async def show(call: Call) -> HTTPResponse:
    return await _page(call)


async def create(call: Call) -> HTTPResponse:
    """Creates a key. Its answer is the only page that shows the secret."""
    body: dict[str, object] = {
        "name": call.form.get("name", "").strip(),
        "rights": [right.value for right, _, _ in RIGHTS if right.value in call.form],
    }
    if limit := call.form.get("limit", "").strip():
        body["limit"] = limit
    if account_id := call.form.get("account", ""):
        body["account"] = account_id
    draft = check(KeyDraft, body, call.context.rules())
    account = None if draft.account is None else await account_in_body(call.context, draft.account)
    plain, key = await call.services.keys.create(
        draft.name, frozenset(map(Right, draft.rights)), draft.limit or "", account, call.user.key_id
    )
    return await _page(call, made=key, secret=str(plain))


async def create_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    return await _page(call, refusal)


async def _page(
    call: Call, refusal: SnapURLError | None = None, made: ApiKey | None = None, secret: str = ""
) -> HTTPResponse:
    cursor = call.query.get("cursor")
    keys, silent = await call.services.keys.page(PAGE_KEYS + 1, read_row_cursor(cursor) if cursor else None)
    more = ""
    if len(keys) > PAGE_KEYS:
        last = keys[PAGE_KEYS - 1]
        more = f"/ui/keys?{urlencode({'cursor': write_row_cursor(RowKey(last.created_at, last.key_id))})}"
    errors = errors_by_field(refusal)
    chosen = call.query.get("account", "")
    typed = dict(call.form) if refusal else {"create": "on", "read": "on", "change": "on", "account": chosen}
    accounts, _ = await choices(call, *filter(None, [typed.get("account")]))
    return call.page(
        "keys.html",
        refusal.status if refusal else 200,
        keys=keys[:PAGE_KEYS],
        more=more,
        silent=silent,
        rights=RIGHTS,
        errors=errors,
        fault=refusal.public_detail if refusal and not errors else "",
        typed=typed,
        accounts=accounts,
        names={each.account_id: each.name for each in accounts} | {key.key_id: key.name for key in keys},
        is_for_account=bool(chosen) and made is None,
        made=made,
        secret=secret,
        is_revoked="revoked" in call.query,
    )


async def confirm_revoke(call: Call) -> HTTPResponse:
    return _revoke_page(call, await _find(call))


async def revoke(call: Call) -> HTTPResponse:
    """Revokes a key, if its name was typed."""
    key = await _find(call)
    if call.form.get("name", "").strip() != key.name:
        return _revoke_page(call, key, "This is not the name of the key.")
    await call.services.keys.revoke(key.key_id, call.user.key_id)
    return call.go("/ui/login" if key.key_id == call.user.key_id else "/ui/keys?revoked=1")


def _revoke_page(call: Call, key: ApiKey, fault: str = "") -> HTTPResponse:
    return call.page("revoke.html", 422 if fault else 200, key=key, fault=fault)


async def _find(call: Call) -> ApiKey:
    """Returns the valid key in the path. Raises NoSuchKey, Unavailable."""
    key = await call.services.auth.find_by_id(call.path["key_id"])
    if key is None:
        raise NoSuchKey()
    return key
