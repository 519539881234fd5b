"""One link: its page with statistics, creating, editing and deleting it."""

from __future__ import annotations

import secrets
from functools import partial

from sanic import HTTPResponse

from snapurl.codes import is_code
from snapurl.errors import (
    AliasTaken,
    FieldError,
    IdempotencyMismatch,
    Invalid,
    NoSuchAddress,
    NotFound,
    OutcomeUnknown,
    SnapURLError,
    Unavailable,
    VersionMismatch,
)
from snapurl.http.auth import owner_filter
from snapurl.http.rate_limits import client_of
from snapurl.http.schema.requests import LinkChange, check, draft_of
from snapurl.model import IdempotencyKey, Link, SourceKind
from snapurl.qr import FORMATS, Style, draw, scan_url
from snapurl.ui.call import Call
from snapurl.ui.charts import HEIGHT, WIDTH, day_chart, shares
from snapurl.ui.forms import PERIODS, STATUSES, LinkForm, errors_by_field

DAYS = (7, 30, 90)
QR_AGE_S_MAX = 3_600
QR_STYLES = {"svg": Style("svg", 320, border=2), "png": Style("png", 1_024)}
REFERRERS = {"": "Direct or not told", "*": "All others"}
BROWSERS = {"": "Not told", "*": "All others", "bot": "Bots", "program": "Programs", "prefetch": "Prefetches"}


# -- create ------------------------------------------------------------------------------------------------------


async def new(call: Call) -> HTTPResponse:
    return _new_page(call, LinkForm(url=call.query.get("url", "")))


async def create(call: Call) -> HTTPResponse:
    """Creates a link. The form has a number of its own, so that sending it twice makes one link."""
    typed = LinkForm.of_form(call.form)
    draft = draft_of(typed.draft(call.services.clock()), call.context.rules())
    once = call.form.get("once", "")
    key = IdempotencyKey(client_of(call.context), f"ui:{once}") if once.isalnum() else None
    link = await call.services.links.create(draft, call.user.account, key, call.user.key_id)
    return call.go(f"/ui/links/{link.code}?made=1")


async def create_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the form of a create that was refused, with what was typed."""
    # A create that may have happened must be repeated under its own number, any other one need not.
    is_kept = isinstance(refusal, Unavailable | OutcomeUnknown)
    once = call.form.get("once", "") if is_kept else ""
    if isinstance(refusal, AliasTaken):
        refusal = Invalid(fields=(FieldError("/alias", "is taken: choose another, or leave it out"),))
    if isinstance(refusal, IdempotencyMismatch):
        refusal = Invalid("the form was sent before with other values: have a look, and send it again")
    return _new_page(call, LinkForm.of_form(call.form), refusal, once)


def _new_page(
    call: Call, typed: LinkForm, refusal: SnapURLError | None = None, once: str = ""
) -> HTTPResponse:
    return call.page(
        "new.html",
        refusal.status if refusal else 200,
        **_form_values(typed, refusal),
        once=once or secrets.token_hex(16),
    )


def _form_values(typed: LinkForm, refusal: SnapURLError | None) -> dict[str, object]:
    errors = errors_by_field(refusal)
    fault = ""
    if refusal is not None and not errors:
        fault = f"{refusal.public_detail[:1].upper()}{refusal.public_detail[1:]}."
    return {"typed": typed, "errors": errors, "fault": fault, "periods": PERIODS, "statuses": STATUSES}


# -- the page ----------------------------------------------------------------------------------------------------


async def show(call: Call) -> HTTPResponse:
    code, owner = _code(call), owner_filter(call.user)
    link = await call.services.links.get(code, owner)
    days = int(text) if (text := call.query.get("days", "")) in map(str, DAYS) else 30
    found, sources = await call.services.links.stats(code, owner)
    return call.page(
        "link.html",
        link=link,
        is_made="made" in call.query,
        is_saved="saved" in call.query,
        is_restored="restored" in call.query,
        now=call.services.clock(),
        total=sum(day.clicks for day in found),
        chart=day_chart(found, call.services.clock().date(), days),
        width=WIDTH,
        height=HEIGHT,
        days=days,
        periods=DAYS,
        panels=(
            ("Referrers", "Referrer", shares(sources, SourceKind.REFERRER, REFERRERS)),
            ("Browsers", "Browser", shares(sources, SourceKind.BROWSER, BROWSERS)),
        ),
    )


def _code(call: Call) -> str:
    """Returns the code in the path. Raises NotFound if it cannot be one."""
    code = call.path["code"]
    if not is_code(code):
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
    return _edit_page(call, link, LinkForm.of_link(link))


async def change(call: Call) -> HTTPResponse:
    """Changes the fields that differ from what the form has shown, if nobody has changed the link since."""
    code, owner, version = _code(call), owner_filter(call.user), call.form.get("version", "")
    current = await call.services.links.get(code, owner)
    if str(current.version) != version:
        raise VersionMismatch("somebody has changed the link since you opened this form")
    typed = LinkForm.of_form(call.form)
    changes = typed.changes(LinkForm.of_link(current), call.services.clock())
    if changes:
        patch = check(LinkChange, changes, call.context.rules()).as_patch()
        await call.services.links.change(code, patch, current.version, owner, call.user.key_id)
    return call.go(f"/ui/links/{code}?saved=1")


async def change_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the form of a change that was refused, with what was typed; after a conflict also the link as it is."""
    typed = LinkForm.of_form(call.form)
    try:
        link = await call.services.links.get(_code(call), owner_filter(call.user))
    except Unavailable:
        return _edit_page(call, None, typed, refusal)
    return _edit_page(call, link, typed, refusal)


def _edit_page(
    call: Call, link: Link | None, typed: LinkForm, refusal: SnapURLError | None = None
) -> HTTPResponse:
    """`link` is the link as it is now; None if that cannot be told."""
    is_conflict = isinstance(refusal, VersionMismatch) and link is not None
    current = LinkForm.of_link(link) if link else typed
    compared = [
        (label, getattr(current, name), getattr(typed, name))
        for label, name in (
            ("Target", "url"),
            ("Title", "title"),
            ("Tags", "tags"),
            ("Expires", "expires_at"),
            ("Status", "status"),
        )
    ]
    version = link.version if link and (is_conflict or refusal is None) else call.form.get("version", "")
    return call.page(
        "edit.html",
        refusal.status if refusal else 200,
        **_form_values(typed, None if is_conflict else refusal),
        code=call.path["code"],
        version=version,
        is_conflict=is_conflict,
        compared=compared,
    )


# -- delete ------------------------------------------------------------------------------------------------------


async def delete(call: Call) -> HTTPResponse:
    """Deletes without a question: the next page has a button that restores."""
    code = _code(call)
    await call.services.links.delete(code, None, owner_filter(call.user), call.user.key_id)
    return call.go(f"/ui/links?deleted={code}")


async def restore(call: Call) -> HTTPResponse:
    code = _code(call)
    await call.services.links.restore(code, None, owner_filter(call.user))
    return call.go(f"/ui/links/{code}?restored=1")
