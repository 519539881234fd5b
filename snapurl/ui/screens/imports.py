"""Imports: the page, whose script sends a file piece by piece, and what it asks of each piece.

Nothing is kept here between two pieces, so each may go to another worker, and an import that has stopped goes on
from where its page knows it to be. What is there already is found again, as with the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

import msgspec
from sanic import HTTPResponse

from snapurl.codes import key_of
from snapurl.errors import FieldError, Invalid, Unavailable
from snapurl.http.api.imports import import_all
from snapurl.http.api.keys import account_in_body
from snapurl.http.schema.imports import Import
from snapurl.http.schema.requests import check
from snapurl.imports.cells import plain_line
from snapurl.imports.pieces import PIECE_ROWS_MAX, Piece, PiecePlace, PieceRow, read_piece
from snapurl.imports.plan import ImportPlan, RefusedRows, RowOutcome, why
from snapurl.imports.rows import FileRefused, Found, Reading
from snapurl.link_exports import rows_text, spreadsheet_cell
from snapurl.model import ImportedDay
from snapurl.ui.call import Call
from snapurl.ui.forms import split_words, time_zone, time_zones
from snapurl.ui.guard import piece_bytes_max
from snapurl.ui.screens.accounts import choices

SOURCES = (
    ("csv", "CSV of any program, or of SnapURL"),
    ("shlink", "Shlink: short_urls.csv"),
    ("yourls", "YOURLS: CSV, or a dump of its database"),
    ("kutt", "Kutt: its links as CSV"),
    ("bitly", "Bitly: CSV"),
    ("dub", "Dub: CSV"),
)
OWN = "own"  # the domain that each link has in the file
SHOWN_CHARS = 200  # of the target of a row, or of what it says

Answer = tuple[RowOutcome, str, str]
"""What becomes of a row, the name of its link, and why."""


async def show(call: Call) -> HTTPResponse:
    accounts, silent = await choices(call)
    return call.page(
        "import.html",
        sources=SOURCES,
        own=OWN,
        domains=call.services.domains.names,
        accounts=[account for account in accounts if account.account_id != call.user.account],
        silent=silent,
        zones=sorted(time_zones()),
        bytes_max=piece_bytes_max(call.services.settings),
    )


async def take(call: Call) -> HTTPResponse:
    """Imports the next rows of a file, or says what would become of them, up to one whose shard is silent."""
    plan, place = _plan(call), _place(call)
    reading = Reading(_zone(call), call.services.clock(), "no_visits" not in call.query)
    settings = call.services.settings
    piece = await call.context.in_thread(
        partial(
            _read, call.query.get("source", ""), call.piece, place, reading, is_last="last" in call.query,
            rows_max=min(PIECE_ROWS_MAX, settings.bulk_links_max), bytes_max=piece_bytes_max(settings),
        )
    )  # fmt: skip
    answers = await _answers(call, plan, piece.rows)
    if piece.rows and not answers:
        raise Unavailable("a shard does not answer", is_public=True, retry_after_s=1.0)
    done = piece.rows[: len(answers)]
    end = done[-1] if done else None
    refused = RefusedRows(piece.header)
    return call.context.json_response(
        {
            "place": str(end.then if end else place),
            "used": end.used if end else 0,
            "over": piece.is_over and len(done) == len(piece.rows),
            "rows": [_shown(each, answer) for each, answer in zip(done, answers, strict=True)],
            "refused_head": _csv_text([refused.header]),
            "refused": _csv_text(
                refused.row(each.row.cells, reason)
                for each, (outcome, _, reason) in zip(done, answers, strict=True)
                if outcome is RowOutcome.REFUSED
            ),
        }
    )


# -- what is asked -----------------------------------------------------------------------------------------------


def _plan(call: Call) -> ImportPlan:
    """Returns what to do with the links. Raises Invalid."""
    asked, domains = call.query, call.services.domains
    domain: str | None = asked.get("domain", OWN)
    if domain == OWN:
        domain = None
    elif domain not in domains.names:
        raise _wrong("domain", domains.refusal())
    return ImportPlan(
        "dry" in asked,
        "" if domain == domains.default else domain,
        asked.get("only", "").strip().lower() or None,
        asked.get("account") or None,
        tuple(split_words(asked.get("tags", ""))),
        call.services.clock() if "skip_expired" in asked else None,
    )


def _place(call: Call) -> PiecePlace:
    text = call.query.get("place", "")
    try:
        return PiecePlace.parse(text) if text else PiecePlace()
    except ValueError as error:
        raise _wrong("place", str(error)) from None


def _zone(call: Call) -> tzinfo:
    name = call.query.get("zone") or "UTC"
    zone = UTC if name == "UTC" else time_zone(name)
    if zone is None:
        raise _wrong("zone", "is not the name of a time zone")
    return zone


def _wrong(name: str, detail: str) -> Invalid:
    return Invalid(fields=(FieldError(f"/query/{name}", detail),))


def _read(
    kind: str,
    body: bytes,
    place: PiecePlace,
    reading: Reading,
    *,
    is_last: bool,
    rows_max: int,
    bytes_max: int,
) -> Piece:
    """Reads a piece. Raises Invalid, also for a file that cannot be read."""
    if kind not in dict(SOURCES):
        raise _wrong("source", "is no source of links")
    try:
        return read_piece(kind, body, place, reading, is_last=is_last, rows_max=rows_max, bytes_max=bytes_max)
    except FileRefused as refusal:
        raise Invalid(str(refusal)) from None


# -- what becomes of the rows ------------------------------------------------------------------------------------


async def _answers(call: Call, plan: ImportPlan, rows: Sequence[PieceRow]) -> list[Answer]:
    """Imports rows. Returns what became of each, up to one whose shard does not answer. Raises Invalid."""
    secret = call.user.secret_hash or call.dashboard.sessions.mark(call.user.key_id)
    answers: dict[int, Answer] = {}
    bodies: dict[int, dict[str, Any]] = {}
    for place, each in enumerate(rows):
        if isinstance(each.found, str):
            answers[place] = RowOutcome.REFUSED, "", each.found
        elif skipped := plan.skipped(each.found):
            answers[place] = RowOutcome.SKIPPED, "", skipped
        else:
            bodies[place] = msgspec.to_builtins(plan.body(each.row, each.found, secret))
    if bodies:
        results = dict(zip(bodies, await _import(call, plan, list(bodies.values())), strict=True))
        answers |= {place: _answer(result) for place, result in results.items() if result["status"] < 500}
        if not plan.is_dry:
            made = {place: result for place, result in results.items() if result["status"] < 400}
            for place in await _without_visits(call, rows, made):
                del answers[place]
    known = next((place for place in range(len(rows)) if place not in answers), len(rows))
    return [answers[place] for place in range(known)]


async def _import(call: Call, plan: ImportPlan, bodies: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Returns the results that the API gives. Raises Invalid, Unavailable."""
    context, account = call.context, call.user.account
    asked = check(Import, {"links": bodies, "account": plan.account}, context.rules())
    if asked.account is not None:
        account = (await account_in_body(context, asked.account)).account_id
    context.is_large = True
    return await import_all(context, bodies, account, is_dry=plan.is_dry)


async def _without_visits(
    call: Call, rows: Sequence[PieceRow], made: Mapping[int, Mapping[str, Any]]
) -> list[int]:
    """Imports the visits by day of links that are there. Returns the rows whose visits must be sent again."""
    keys: dict[str, int] = {}
    days: dict[str, list[ImportedDay]] = {}
    for place, result in made.items():
        found = rows[place].found
        if isinstance(found, Found) and found.days:
            key = key_of(result["domain"] or "", result["code"])
            keys[key] = place
            days[key] = [ImportedDay(key, day, clicks, bots) for day, (clicks, bots) in found.days.items()]
    if not days:
        return []
    done = await call.services.imports.visits(days)
    return [keys[key] for key, refusal in done.items() if refusal is not None and refusal.status >= 500]


def _answer(result: Mapping[str, Any]) -> Answer:
    if result["status"] >= 400:
        return RowOutcome.REFUSED, "", why(result["error"])
    name = f"{result['domain']}/{result['code']}" if result["domain"] else result["code"]
    return (RowOutcome.CREATED if result["status"] == 201 else RowOutcome.PRESENT), name, ""


def _shown(each: PieceRow, answer: Answer) -> list[object]:
    """Returns the number of a row, what becomes of it, its link, its target or what it says, and remarks."""
    outcome, name, reason = answer
    if isinstance(each.found, str):
        return [each.row.place, outcome, name, plain_line(", ".join(each.row.cells))[:SHOWN_CHARS], reason]
    remarks = "" if outcome is RowOutcome.SKIPPED else "; ".join(each.found.remarks)
    said = "; ".join(filter(None, (reason, remarks)))
    shown = name or each.found.code or ""
    return [each.row.place, outcome, shown, plain_line(each.found.url)[:SHOWN_CHARS], said]


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    return rows_text(map(spreadsheet_cell, row) for row in rows)
