"""One link: its page with statistics, creating, editing and deleting it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from sanic import HTTPResponse

from snapurl.errors import (
    AliasTaken,
    FieldError,
    Gone,
    Invalid,
    NoSuchAddress,
    NotFound,
    SnapURLError,
    Unavailable,
    VersionMismatch,
)
from snapurl.http.auth import owner_filter
from snapurl.http.rate_limits import client_of, count_links
from snapurl.http.schema.requests import LinkChange, Rename, check, draft_of
from snapurl.model import IdempotencyKey, Link, Right
from snapurl.qr import FORMATS, Style, draw, scan_url
from snapurl.ui.call import Call
from snapurl.ui.forms import (
    PERIODS,
    STATUSES,
    LinkForm,
    check_carried,
    compared,
    errors_by_field,
    is_form_number,
    key_in_path,
    path_of,
    sentence,
)
from snapurl.ui.link_history import history_view
from snapurl.ui.link_live import LinkLive, clicks_event
from snapurl.ui.retries import retry_of
from snapurl.ui.rule_forms import CHOICES, NAMES, arranged
from snapurl.ui.screens.statistics import view_of_link

DONE = {
    "made": "The link is ready.",
    "saved": "Saved.",
    "restored": "The link is back.",
    "unshared": "The public link is revoked: its page is gone.",
    "shared": "Whoever has the public link sees the statistics now.",
    "renamed": "The link has its new code. Its clicks begin anew: those of the old code stay there.",
}
"""What is said at an address with that parameter."""
QR_AGE_S_MAX = 3_600
QR_STYLES = {"svg": Style("svg", 320, border=2), "png": Style("png", 1_024)}
# -- create ------------------------------------------------------------------------------------------------------


async def new(call: Call) -> HTTPResponse:
    return _new_page(call, LinkForm(url=call.query.get("url", "")))


async def create(call: Call) -> HTTPResponse:
    """Creates a link. The form has a number of its own, so that sending it twice makes one link."""
    check_carried(call.form)
    typed, once = LinkForm.of_form(call.form), call.form.get("once", "")
    draft = draft_of(typed.draft(call.services.clock(), once), call.context.rules())
    key = (
        IdempotencyKey(client_of(call.context), typed.idempotency_key(once)) if is_form_number(once) else None
    )
    link = await call.services.links.create(draft, call.user.account, key, call.user.key_id)
    return call.go(f"/ui/links/{path_of(link.code)}?made=1")


async def create_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the form of a create that was refused, with what was typed."""
    if isinstance(refusal, AliasTaken):
        refusal = Invalid(fields=(FieldError("/alias", "is taken: choose another, or leave it out"),))
    return _new_page(call, LinkForm.of_form(call.form), refusal)


async def arrange_new(call: Call) -> HTTPResponse:
    """Shows the form of a create with what was typed so far: for more options, or with its rules rearranged."""
    return _new_page(call, _arranged(call))


def _arranged(call: Call) -> LinkForm:
    typed = LinkForm.of_form(call.form)
    return replace(typed, rules=arranged(typed.rules, call.form.get("arrange", "")))


def _new_page(call: Call, typed: LinkForm, refusal: SnapURLError | None = None) -> HTTPResponse:
    return call.page(
        "new.html",
        refusal.status if refusal else 200,
        **_form_values(call, typed, refusal),
        once=call.once,
    )


def _form_values(call: Call, typed: LinkForm, refusal: SnapURLError | None) -> dict[str, object]:
    errors = errors_by_field(refusal)
    shown = {"url", "alias", "title", "tags", "expires_at"}
    return {
        "typed": typed,
        "errors": errors,
        "fault": sentence(refusal) if refusal is not None and not errors else "",
        "retry": retry_of(refusal, call.form),
        "is_open": typed.has_options or bool(errors.keys() - shown) or "arrange" in call.form,
        "added": len(typed.rules) - 1 if call.form.get("arrange") == "add" else None,
        "periods": PERIODS,
        "statuses": STATUSES,
        "choices": CHOICES,
        "names": NAMES,
    }


# -- the page ----------------------------------------------------------------------------------------------------


async def show(call: Call) -> HTTPResponse:
    return await _show_page(call, {})


async def _show_page(
    call: Call, asked: Mapping[str, str], refusal: SnapURLError | None = None
) -> HTTPResponse:
    """`asked` is the form of a rename that was refused. Raises NotFound, Gone, Unavailable."""
    code, owner, links = _code(call), owner_filter(call.user), call.services.links
    link = await links.get(code, owner)
    view, history, used, shared = await asyncio.gather(
        view_of_link(call, code, owner, f"/ui/links/{path_of(code)}"),
        links.history(code, owner),
        links.used([link]),
        _public_url(call, code),
    )
    errors = errors_by_field(refusal)
    return call.page(
        "link.html",
        refusal.status if refusal else 200,
        link=link,
        used=used,
        done=next((text for name, text in DONE.items() if name in call.query), ""),
        now=call.services.clock(),
        view=view,
        shared=shared,
        history=history_view(history, shows_all=call.query.get("history") == "all"),
        asked=asked,
        errors=errors,
        fault=sentence(refusal) if refusal is not None and not errors else "",
        retry=retry_of(refusal, asked),
    )


async def _public_url(call: Call, code: str) -> str:
    """Returns the URL of the public statistics for those who may revoke it; "" if there are none."""
    if not call.may(Right.CHANGE):
        return ""
    found = await call.services.statistics.share_of(code, owner_filter(call.user))
    return "" if found is None else call.services.settings.shared_statistics_url(code, found.secret)


async def live(call: Call) -> HTTPResponse:
    """The clicks as an event has them, for pages that get no events."""
    link = await call.services.links.get(_code(call), owner_filter(call.user))
    return call.context.json_response(json.loads(clicks_event(link.clicks)))


async def live_events(call: Call) -> HTTPResponse:
    """The stream of events; each is the number of clicks."""
    code, owner = _code(call), owner_filter(call.user)
    await call.services.links.get(code, owner)  # whoever asks for a link that is not there is told so
    watched: LinkLive = call.context.request.app.ctx.link_live
    return call.stream(watched.watch(code, owner), Right.READ)


def _code(call: Call) -> str:
    """Returns the key in the path. Raises NotFound if it cannot be one."""
    code = key_in_path(call.path["code"])
    if not code:
        raise NotFound()
    return code


async def qr(call: Call) -> HTTPResponse:
    """The QR code of the short URL, as a picture of the page (SVG) or to be printed (PNG)."""
    link = await call.services.links.get(_code(call), owner_filter(call.user))
    style = QR_STYLES.get(call.path["format"])
    if style is None:
        raise NoSuchAddress("nothing is at this address")
    text = scan_url(call.services.domains.short_url(link.code))
    image = await call.context.in_thread(partial(draw, text, style))
    headers = {**call.context.headers, "cache-control": f"private, max-age={QR_AGE_S_MAX}"}
    return HTTPResponse(image, 200, headers, FORMATS[style.format])


# -- edit --------------------------------------------------------------------------------------------------------


async def edit(call: Call) -> HTTPResponse:
    link = await call.services.links.get(_code(call), owner_filter(call.user))
    return _edit_page(call, link, LinkForm.of_link(link), version=str(link.version))


async def change(call: Call) -> HTTPResponse:
    """Changes the fields that differ from what the form has shown, if nobody has changed the link since."""
    check_carried(call.form)
    code, owner, version = _code(call), owner_filter(call.user), call.form.get("version", "")
    current = await call.services.links.get(code, owner)
    typed, now = LinkForm.of_form(call.form), call.services.clock()
    changes = typed.changes(LinkForm.of_link(current), now)
    if changes:
        # A form that is repeated, because the answer to it was lost, has nothing left to change.
        if str(current.version) != version:
            raise VersionMismatch("somebody has changed the link since you opened this form")
        patch = check(LinkChange, changes, call.context.rules()).as_patch()
        await call.services.links.change(code, patch, current.version, owner, call.user.key_id)
    return call.go(f"/ui/links/{path_of(code)}?saved=1")


async def change_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the form of a change that was refused, with what was typed; after a conflict also the link as it is."""
    link = await _link_if_known(call)
    is_conflict = isinstance(refusal, VersionMismatch) and link is not None
    version = str(link.version) if link and is_conflict else call.form.get("version", "")
    return _edit_page(
        call, link, LinkForm.of_form(call.form), refusal, version=version, is_conflict=is_conflict
    )


async def arrange(call: Call) -> HTTPResponse:
    """Shows the form of a change with what was typed so far, and its rules rearranged."""
    link = await _link_if_known(call)
    return _edit_page(call, link, _arranged(call), version=call.form.get("version", ""))


async def _link_if_known(call: Call) -> Link | None:
    """Returns the link as it is now; None if that cannot be told. Raises NotFound, Gone."""
    try:
        return await call.services.links.get(_code(call), owner_filter(call.user))
    except Unavailable:
        return None


def _edit_page(
    call: Call,
    link: Link | None,
    typed: LinkForm,
    refusal: SnapURLError | None = None,
    *,
    version: str,
    is_conflict: bool = False,
) -> HTTPResponse:
    """`link` is the link as it is now, None if that cannot be told; `version` is the one that the form changes."""
    current = LinkForm.of_link(link) if link else typed
    return call.page(
        "edit.html",
        refusal.status if refusal else 200,
        **_form_values(call, typed, None if is_conflict else refusal),
        code=_code(call),
        version=version,
        is_conflict=is_conflict,
        compared=compared(current, typed, call.zone),
        has_password=link.password_hash is not None if link else "has_password" in call.form,
    )


# -- rename ------------------------------------------------------------------------------------------------------


async def rename(call: Call) -> HTTPResponse:
    """Gives the link another code. A form that is sent twice finds that it is done."""
    code = _code(call)
    body = {
        "code": call.form.get("code", "").strip(),
        "old": "give-up" if "gives_up" in call.form else "redirect",
    }
    asked = check(Rename, body, call.context.rules())
    await count_links(call.context, 1)
    link = await call.services.renames.rename(
        code,
        asked.code,
        gives_up=asked.old == "give-up",
        if_match=None,
        owner=owner_filter(call.user),
        by=call.user.key_id,
    )
    return call.go(f"/ui/links/{path_of(link.code)}?renamed=1")


async def rename_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the page of a link whose rename was refused, with what was typed."""
    if isinstance(refusal, AliasTaken):
        refusal = Invalid(fields=(FieldError("/code", "is taken: choose another"),))
    if isinstance(refusal, NotFound | Gone):
        raise refusal
    return await _show_page(call, call.form, refusal)


# -- public statistics -------------------------------------------------------------------------------------------


async def make_public(call: Call) -> HTTPResponse:
    """Makes the public link to the statistics. A form that is sent twice finds the one that there is."""
    code = _code(call)
    await call.services.statistics.share(code, owner_filter(call.user), call.user.key_id)
    return call.go(f"/ui/links/{path_of(code)}?shared=1#public")


async def end_public(call: Call) -> HTTPResponse:
    code = _code(call)
    await call.services.statistics.revoke_share(code, owner_filter(call.user), call.user.key_id)
    return call.go(f"/ui/links/{path_of(code)}?unshared=1#public")


# -- title -------------------------------------------------------------------------------------------------------


async def take_title(call: Call) -> HTTPResponse:
    """Gives the link the title of its target."""
    code = _code(call)
    await count_links(call.context, 1)
    await call.services.links.fetch_title(code, owner_filter(call.user), call.user.key_id)
    return call.go(f"/ui/links/{path_of(code)}?saved=1")


async def take_title_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the page of a link whose target has no title, and says why."""
    if isinstance(refusal, NotFound | Gone):
        raise refusal
    return await _show_page(call, {}, refusal)


# -- delete ------------------------------------------------------------------------------------------------------


async def delete(call: Call) -> HTTPResponse:
    """Deletes without a question: the next page has a button that restores."""
    code = _code(call)
    with suppress(Gone):  # the form was sent twice
        await call.services.links.delete(code, None, owner_filter(call.user), call.user.key_id)
    return call.go(f"/ui/links?deleted={path_of(code)}")


async def restore(call: Call) -> HTTPResponse:
    code = _code(call)
    await call.services.links.restore(code, None, owner_filter(call.user))
    return call.go(f"/ui/links/{path_of(code)}?restored=1")
