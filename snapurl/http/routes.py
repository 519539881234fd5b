"""The route table: every path of the service. /openapi.json and /docs are generated from it.

`LINKS_PATH` is defined in `schema/route.py`, since the fast path recognises a create by it, too.
"""

from __future__ import annotations

from dataclasses import replace

from ring.arcs import ARCS
from snapurl.codes import CODE_PATTERN
from snapurl.errors import (
    AliasTaken,
    BadRequest,
    BlockedTarget,
    Forbidden,
    Gone,
    IdempotencyMismatch,
    Invalid,
    NameTaken,
    NoSuchAccount,
    NoSuchAddress,
    NoSuchKey,
    NotFound,
    NoTitle,
    OutcomeUnknown,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    VersionMismatch,
)
from snapurl.http.api.batches import (
    TAGS_LISTED_DEFAULT,
    TAGS_LISTED_MAX,
    change_links,
    delete_tag,
    list_tags,
    rename_tag,
)
from snapurl.http.api.blocklist import LINKS_READ, list_blocked_links, read_blocklist, try_url
from snapurl.http.api.cursors import ROWS_CURSOR_CHARS_MAX
from snapurl.http.api.health import health_live, health_ready
from snapurl.http.api.history import link_history
from snapurl.http.api.imports import import_links, import_visits
from snapurl.http.api.keys import (
    PAGE_ROWS_DEFAULT,
    PAGE_ROWS_MAX,
    create_account,
    create_key,
    list_accounts,
    list_keys,
    me,
    read_account,
    rename_account,
    revoke_key,
    transfer_links,
)
from snapurl.http.api.links import (
    KEY_CHARS_MAX,
    change_link,
    create_link,
    create_links,
    delete_link,
    fetch_title,
    read_link,
    rename_link,
    restore_link,
    transfer_link,
)
from snapurl.http.api.lists import (
    PAGE_LINKS_DEFAULT,
    PAGE_LINKS_MAX,
    list_links,
)
from snapurl.http.api.public_stats import make_public_stats, read_public_stats, revoke_public_stats
from snapurl.http.api.qr import COLOUR, link_qr
from snapurl.http.api.stats import (
    VALUES_DEFAULT,
    VALUES_MAX,
    link_stats,
    link_stats_kind,
    ring,
    stats,
    stats_kind,
)
from snapurl.http.context import Handler
from snapurl.http.docs.site import (
    docs,
    docs_script,
    docs_start,
    docs_style,
    favicon,
    home,
    openapi,
    robots,
)
from snapurl.http.schema import keys, responses, statistics
from snapurl.http.schema.batches import LinkBatch, TagName
from snapurl.http.schema.blocklist import BlockedLinks, BlocklistBody, Tried, UrlToTry
from snapurl.http.schema.history import History
from snapurl.http.schema.imports import Import, ImportedVisits, ImportResults, VisitResults
from snapurl.http.schema.keys import AccountDraft, KeyDraft, TransferBody
from snapurl.http.schema.requests import (
    CURSOR_CHARS_MAX,
    ID_PATTERN,
    TAG_CHARS_MAX,
    TEXT_CHARS_MAX,
    Bulk,
    LinkChange,
    LinkDraft,
    Rename,
)
from snapurl.http.schema.route import DOMAIN, LINKS_PATH, Parameter, Route, Success
from snapurl.model import LinkOrder, LinkState, Right
from snapurl.periods import HOUR_DAYS_MAX, Interval
from snapurl.qr import BORDER_MAX, ERRORS, FORMATS, SIZE_PX_MAX, SIZE_PX_MIN, TRANSPARENT, Style
from snapurl.urls import HOST_CHARS_MAX

LINK_PATH = LINKS_PATH + "/{code}"
TAGS_PATH = "/api/v1/tags"
BATCH_BODY_LINKS = 20  # a batch may have as many JSON values as these: 1,000 codes and what else there is

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "A name for this request, of your choosing: repeating it within 24 hours with the same name and body gives "
    "the first answer instead of a second link.",
    {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[!-~]+$"},
)
IF_MATCH = Parameter(
    "If-Match",
    "header",
    'The version that the link must still have, as in its `ETag`: `"3"`. Left out or `*`: any.',
    {"type": "string", "pattern": '^("[1-9][0-9]{0,17}"|[1-9][0-9]{0,17}|\\*)$'},
)
LIMIT = Parameter(
    "limit",
    "query",
    "How many links a page has.",
    {"type": "integer", "minimum": 1, "maximum": PAGE_LINKS_MAX, "default": PAGE_LINKS_DEFAULT},
)
CURSOR = Parameter(
    "cursor",
    "query",
    "`next_cursor` of the page before. Repeat all other parameters: a cursor belongs to its query.",
    {"type": "string", "maxLength": CURSOR_CHARS_MAX},
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    "The `ETag` of the image that you have: 304 if it is still the same.",
    {"type": "string"},
)
_USUAL = Style()
QR_STYLE = (
    Parameter(
        "format", "query", "SVG or PNG.", {"type": "string", "enum": [*FORMATS], "default": _USUAL.format}
    ),
    Parameter(
        "size",
        "query",
        "Width in pixels. The modules of a PNG are whole pixels, so it may be a little narrower.",
        {"type": "integer", "minimum": SIZE_PX_MIN, "maximum": SIZE_PX_MAX, "default": _USUAL.size},
    ),
    Parameter(
        "border",
        "query",
        "The quiet zone around the code, in modules. Readers expect 4.",
        {"type": "integer", "minimum": 0, "maximum": BORDER_MAX, "default": _USUAL.border},
    ),
    Parameter(
        "dark",
        "query",
        "Colour of dark modules: six hexadecimal digits, without `#`.",
        {"type": "string", "pattern": f"^{COLOUR}$", "default": _USUAL.dark[1:]},
    ),
    Parameter(
        "light",
        "query",
        f"Colour of light modules, or `{TRANSPARENT}`.",
        {"type": "string", "pattern": f"^({COLOUR}|{TRANSPARENT})$", "default": _USUAL.light[1:]},
    ),
    Parameter(
        "error",
        "query",
        "How much of the code may be damaged: L 7 %, M 15 %, Q 25 %, H 30 %.",
        {"type": "string", "enum": [*ERRORS], "default": _USUAL.error},
    ),
)
_DOMAIN_SCHEMA = {"type": "string", "minLength": 1, "maxLength": HOST_CHARS_MAX}
OF_LINK = Parameter(
    DOMAIN,
    "query",
    "The domain of the link. Left out: that of the base URL. It may be one that the service no longer has.",
    _DOMAIN_SCHEMA,
)
PLACE_OF = Parameter(
    "code",
    "query",
    "A code, whether a link has it or not: in which slot and on which shard is it?",
    {"type": "string", "pattern": CODE_PATTERN.pattern.join("^$")},
)
ROWS = Parameter(
    "limit",
    "query",
    "How many keys or accounts a page has.",
    {"type": "integer", "minimum": 1, "maximum": PAGE_ROWS_MAX, "default": PAGE_ROWS_DEFAULT},
)
ALL_CURSOR = Parameter(
    "cursor",
    "query",
    "`next_cursor` of the page before.",
    {"type": "string", "maxLength": CURSOR_CHARS_MAX},
)
ROWS_CURSOR = Parameter(
    "cursor",
    "query",
    "`next_cursor` of the page before.",
    {"type": "string", "maxLength": ROWS_CURSOR_CHARS_MAX},
)
OF_ACCOUNT = Parameter(
    "account", "query", "Only keys of this account.", {"type": "string", "pattern": ID_PATTERN}
)

ARCS_ASKED_FOR = Parameter(
    "arcs",
    "query",
    "Into how many arcs of equal length to divide the slots, to draw them. Left out: no arcs.",
    {"type": "integer", "enum": list(ARCS)},
)


def _tags(name: str, meaning: str) -> Parameter:
    tag = {"type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX}
    return Parameter(name, "query", meaning, {"type": "array", "items": tag})


def _time(name: str, meaning: str) -> Parameter:
    return Parameter(name, "query", meaning, {"type": "string", "format": "date-time"})


def _flag(name: str, meaning: str) -> Parameter:
    return Parameter(name, "query", meaning, {"type": "boolean", "default": False})


def _day(name: str, meaning: str) -> Parameter:
    return Parameter(name, "query", meaning, {"type": "string", "format": "date"})


PERIOD = (_day("from", "The first day. Left out: no bound."), _day("to", "The last day. Left out: no bound."))
INTERVALS = (
    Parameter(
        "interval",
        "query",
        f"What a point of the series is. By hour there are at most {HOUR_DAYS_MAX} days, the last 7 if not told.",
        {"type": "string", "enum": list(Interval), "default": Interval.DAY},
    ),
    Parameter(
        "tz",
        "query",
        "The time zone of days and hours. Clicks are kept by UTC hour: with half an hour of offset, those around "
        "midnight may be on the neighbouring day. Visitors are of UTC days.",
        {"type": "string", "default": "UTC", "maxLength": 100},
    ),
    Parameter(
        "compare",
        "query",
        "`previous`: also the period of the same length before `from`.",
        {"type": "string", "enum": ["previous"]},
    ),
)
VALUES = Parameter(
    "limit",
    "query",
    "How many values to return.",
    {"type": "integer", "minimum": 1, "maximum": VALUES_MAX, "default": VALUES_DEFAULT},
)
GROUP = (
    Parameter("account", "query", "Links of this account.", {"type": "string", "pattern": ID_PATTERN}),
    Parameter(
        "tag",
        "query",
        "Links with this tag, of the account or of all.",
        {"type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX},
    ),
    Parameter(DOMAIN, "query", "Links of this domain.", _DOMAIN_SCHEMA),
)
OF_GROUP = (
    "An admin key sees all links, or those of a domain, an account or a tag; any other key those of its account. A "
    "click counts under what its link had when it was counted."
)
AS_CSV = "With `Accept: text/csv` as a table."

FIND = (
    Parameter(
        "q",
        "query",
        "Part of the code, the URL, the title or the note; letters from A to Z match in either case.",
        {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX},
    ),
    _tags("tags_any", "Links with one of these tags. Repeat the parameter for each."),
    _tags("tags_all", "Links with all of these tags."),
    _tags("tags_none", "Links with none of these tags."),
    Parameter(
        "state",
        "query",
        "What the links are now. Left out: all that are not deleted.",
        {"type": "string", "enum": list(LinkState)},
    ),
    Parameter("account", "query", "Links of this account.", {"type": "string"}),
    Parameter("creator", "query", "Links that the API key with this id made.", {"type": "string"}),
    Parameter(DOMAIN, "query", "Links of this domain. Left out: of all.", _DOMAIN_SCHEMA),
    _time("created_from", "Created at this time or later."),
    _time("created_to", "Created before this time."),
    _time(
        "changed_from", "Changed at this time or later; a link that never was counts as changed when created."
    ),
    _time("changed_to", "Changed before this time."),
    _time("expires_from", "With an expiry, at this time or later."),
    _time("expires_to", "With an expiry before this time."),
    Parameter(
        "sort",
        "query",
        "By what the links are sorted.",
        {"type": "string", "enum": list(LinkOrder), "default": "created"},
    ),
    Parameter(
        "order",
        "query",
        "In which direction.",
        {"type": "string", "enum": ["desc", "asc"], "default": "desc"},
    ),
    _flag("total", "Whether to count the links of the query: exact up to 10,000, an estimate beyond."),
    _flag(
        "strict", "Whether to refuse with 503 while some links cannot be reached, rather than leave them out."
    ),
)

TAG = Parameter(
    "tag",
    "query",
    "The tag.",
    {"type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX},
    is_required=True,
)
TAG_PREFIX = Parameter(
    "q",
    "query",
    "How the tags begin; letters from A to Z match in either case.",
    {"type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX},
)
TAGS_LIMIT = Parameter(
    "limit",
    "query",
    "How many tags to list.",
    {"type": "integer", "minimum": 1, "maximum": TAGS_LISTED_MAX, "default": TAGS_LISTED_DEFAULT},
)

ETAG = {"ETag": "The version, in quotes."}
RATE = {"RateLimit-Policy": "The rule, where one applies.", "RateLimit": "What is left of it."}

WRITE = (BadRequest, Invalid, TooLarge, UnsupportedMediaType, Unavailable)
ONE_LINK = (Unauthorized, Forbidden, NotFound, Gone, Invalid, BadRequest, RateLimited, Unavailable)
ADMIN = (Unauthorized, Forbidden, Invalid, BadRequest, RateLimited, Unavailable)

VIEWER_SCRIPT = (Success(200, "JavaScript", media="text/javascript"),)

_ROUTES: tuple[Route[Handler], ...] = (
    # -- links -----------------------------------------------------------------------------------------------
    Route(
        "POST",
        LINKS_PATH,
        create_link,
        "Shorten a URL",
        "Links",
        (
            Success(
                201,
                "The link",
                responses.LinkBody,
                {"Location": "The link's address in this API.", **ETAG, **RATE},
            ),
        ),
        right=Right.CREATE,
        may_be_anonymous=True,
        body=LinkDraft,
        parameters=(IDEMPOTENCY_KEY,),
        refusals=(
            *WRITE,
            Unauthorized,
            Forbidden,
            AliasTaken,
            BlockedTarget,
            IdempotencyMismatch,
            RateLimited,
            OutcomeUnknown,
        ),
    ),
    Route(
        "GET",
        LINKS_PATH,
        list_links,
        "Find links",
        "Links",
        (Success(200, "A page of links", responses.LinkPage, {"Link": 'The next page, as `rel="next"`.'}),),
        "Newest first, unless you ask otherwise. Links must meet every condition. An admin key sees all links, any "
        "other those of its account.",
        right=Right.READ,
        parameters=(LIMIT, CURSOR, *FIND),
        refusals=(Unauthorized, Forbidden, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "POST",
        LINKS_PATH + "/bulk",
        create_links,
        "Shorten many URLs at once",
        "Links",
        (Success(200, "One result per link, in the order asked", responses.BulkResults, RATE),),
        "Up to 1,000 links, if your limit (`RateLimit-Policy`) and this deployment allow as many at once. Each of "
        "them succeeds or fails by itself. With an `Idempotency-Key` a repeat finds each of them again.",
        right=Right.CREATE,
        may_be_anonymous=True,
        is_bulk=True,
        body=Bulk,
        parameters=(IDEMPOTENCY_KEY,),
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "POST",
        "/api/v1/import",
        import_links,
        "Import links from another service",
        "Links",
        (Success(200, "One result per link, in the order asked", ImportResults),),
        "Up to 1,000 links, each under its code there, with the time of its creation and its clicks. Takes an "
        "admin key. A repeat finds the links of the first time: one with an alias if that leads to its URL (200), "
        "one without by its `id`. `snapurl import` reads files of other services and sends their links here.",
        right=Right.ADMIN,
        is_bulk=True,
        body=Import,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "POST",
        "/api/v1/import/visits",
        import_visits,
        "Import what another service counted by day",
        "Links",
        (Success(200, "One result per link, in the order asked", VisitResults),),
        "Visits of links that are here. They are kept apart from clicks: statistics of a link show them as "
        "`imported`, and no total has them. Takes an admin key.",
        right=Right.ADMIN,
        is_bulk=True,
        body=ImportedVisits,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "POST",
        LINKS_PATH + "/batch",
        change_links,
        "Change many links at once",
        "Links",
        (Success(200, "One result per link", responses.BatchResults),),
        "Up to 1,000 links per request; each succeeds or fails by itself. Name them by `codes`, or by a `filter`: "
        "first with `dry_run`, which counts them, then with that number as `confirm`, then with each `next_cursor` "
        "as `cursor`.",
        right=Right.CHANGE,
        body=LinkBatch,
        body_links=BATCH_BODY_LINKS,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "GET",
        LINK_PATH,
        read_link,
        "Read a link",
        "Links",
        (Success(200, "The link, also when it has expired", responses.LinkBody, ETAG),),
        right=Right.READ,
        refusals=ONE_LINK,
    ),
    Route(
        "PATCH",
        LINK_PATH,
        change_link,
        "Change a link",
        "Links",
        (Success(200, "The changed link", responses.LinkBody, ETAG),),
        right=Right.CHANGE,
        body=LinkChange,
        parameters=(IF_MATCH,),
        refusals=(*ONE_LINK, BlockedTarget, TooLarge, UnsupportedMediaType, VersionMismatch, OutcomeUnknown),
    ),
    Route(
        "DELETE",
        LINK_PATH,
        delete_link,
        "Delete a link",
        "Links",
        (Success(204, "Deleted"),),
        "Its address answers 410 from then on, and its code is never given out again. It can be restored for 30 "
        "days.",
        right=Right.CHANGE,
        parameters=(IF_MATCH,),
        refusals=(*ONE_LINK, VersionMismatch, OutcomeUnknown),
    ),
    Route(
        "POST",
        LINK_PATH + "/restore",
        restore_link,
        "Restore a deleted link",
        "Links",
        (Success(200, "The link, also if it was not deleted", responses.LinkBody, ETAG),),
        "For 30 days after it was deleted. It then has its clicks and everything else that it had.",
        right=Right.CHANGE,
        parameters=(IF_MATCH,),
        refusals=(*ONE_LINK, BlockedTarget, VersionMismatch, OutcomeUnknown),
    ),
    Route(
        "POST",
        LINK_PATH + "/title",
        fetch_title,
        "Fetch the title of a link's target",
        "Links",
        (Success(200, "The link with that title", responses.LinkBody, {**ETAG, **RATE}),),
        "If this deployment fetches titles (`SNAPURL_FETCH_TITLES`). The target must be an HTML page on the public "
        "Internet.",
        right=Right.CHANGE,
        refusals=(*ONE_LINK, NoTitle, VersionMismatch, OutcomeUnknown),
    ),
    Route(
        "POST",
        LINK_PATH + "/rename",
        rename_link,
        "Give a link another code",
        "Links",
        (
            Success(
                200,
                "The link at its new code",
                responses.LinkBody,
                {"Location": "The link's new address in this API.", **ETAG, **RATE},
            ),
        ),
        "Makes a link with the new code that has all that this one has, and says so here (`renamed_to`). Clicks "
        "and history stay with the code at which they were made. If the reply is lost, repeat the request.",
        right=Right.CHANGE,
        body=Rename,
        parameters=(IF_MATCH,),
        refusals=(
            *ONE_LINK,
            TooLarge,
            UnsupportedMediaType,
            AliasTaken,
            BlockedTarget,
            VersionMismatch,
            OutcomeUnknown,
        ),
    ),
    Route(
        "GET",
        LINK_PATH + "/stats",
        link_stats,
        "Count a link's clicks",
        "Links",
        (
            Success(
                200, "Clicks by interval, by UTC day, referring host and browser family", statistics.Stats
            ),
        ),
        f"Of a deleted link, too. Without `from` and `to` of all time. {AS_CSV}",
        right=Right.READ,
        parameters=(*PERIOD, *INTERVALS),
        refusals=(*(kind for kind in ONE_LINK if kind is not Gone), Invalid),
    ),
    Route(
        "GET",
        LINK_PATH + "/stats/{kind}",
        link_stats_kind,
        "Count a link's clicks by what is told of them",
        "Links",
        (Success(200, "The values with the most clicks", statistics.KindStats),),
        f"Of a deleted link, too. Without `from` and `to` of all time. {AS_CSV}",
        right=Right.READ,
        parameters=(*PERIOD, VALUES),
        refusals=(*(kind for kind in ONE_LINK if kind is not Gone), Invalid),
    ),
    Route(
        "GET",
        "/api/v1/stats",
        stats,
        "Count the clicks of many links",
        "Links",
        (Success(200, "Clicks by interval", statistics.GroupStats),),
        f"{OF_GROUP} {AS_CSV}",
        right=Right.READ,
        parameters=(*GROUP, *PERIOD, *INTERVALS),
        refusals=(Unauthorized, Forbidden, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "GET",
        "/api/v1/stats/{kind}",
        stats_kind,
        "Count the clicks of many links by what is told of them",
        "Links",
        (Success(200, "The values with the most clicks", statistics.KindStats),),
        f"{OF_GROUP} {AS_CSV}",
        right=Right.READ,
        parameters=(*GROUP, *PERIOD, VALUES),
        refusals=(Unauthorized, Forbidden, NoSuchAddress, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "POST",
        LINK_PATH + "/public-stats",
        make_public_stats,
        "Make a public link to a link's statistics",
        "Links",
        (Success(200, "The public link, also if there was one", statistics.PublicStats),),
        "A page for people, which needs no key. Where the dashboard is switched off there is none.",
        right=Right.CHANGE,
        refusals=(*(kind for kind in ONE_LINK if kind is not Gone), NoSuchAddress, OutcomeUnknown),
    ),
    Route(
        "GET",
        LINK_PATH + "/public-stats",
        read_public_stats,
        "Which public link do a link's statistics have?",
        "Links",
        (Success(200, "The public link, if there is one", statistics.PublicStats),),
        right=Right.READ,
        refusals=tuple(kind for kind in ONE_LINK if kind is not Gone),
    ),
    Route(
        "DELETE",
        LINK_PATH + "/public-stats",
        revoke_public_stats,
        "Revoke the public link to a link's statistics",
        "Links",
        (Success(204, "Revoked, or there was none"),),
        "The page is gone at once, and no later public link of the link has its address.",
        right=Right.CHANGE,
        refusals=(*(kind for kind in ONE_LINK if kind is not Gone), OutcomeUnknown),
    ),
    Route(
        "GET",
        LINK_PATH + "/history",
        link_history,
        "Who changed a link, and when?",
        "Links",
        (Success(200, "The create and the newest changes", History),),
        "Of a deleted link, too.",
        right=Right.READ,
        refusals=tuple(kind for kind in ONE_LINK if kind is not Gone),
    ),
    # -- tags ------------------------------------------------------------------------------------------------
    Route(
        "GET",
        TAGS_PATH,
        list_tags,
        "List tags",
        "Links",
        (Success(200, "Tags and how many links have each", responses.TagList),),
        "An admin key sees the tags of all links, any other those of its own.",
        right=Right.READ,
        parameters=(TAG_PREFIX, TAGS_LIMIT),
        refusals=(Unauthorized, Forbidden, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "PATCH",
        TAGS_PATH,
        rename_tag,
        "Rename a tag",
        "Links",
        (Success(200, "How many links were changed, and how many are left", responses.TagProgress),),
        "On up to 1,000 links per request: repeat it until none are left.",
        right=Right.CHANGE,
        body=TagName,
        parameters=(TAG,),
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "DELETE",
        TAGS_PATH,
        delete_tag,
        "Delete a tag",
        "Links",
        (Success(200, "How many links were changed, and how many are left", responses.TagProgress),),
        "From up to 1,000 links per request: repeat it until none are left. The links stay.",
        right=Right.CHANGE,
        parameters=(TAG,),
        refusals=(Unauthorized, Forbidden, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "POST",
        LINK_PATH + "/transfer",
        transfer_link,
        "Give a link to another account",
        "Links",
        (Success(200, "The link", responses.LinkBody, ETAG),),
        "Only for admin keys. Its code, target and clicks stay.",
        right=Right.ADMIN,
        body=TransferBody,
        parameters=(IF_MATCH,),
        refusals=(*ONE_LINK, TooLarge, UnsupportedMediaType, VersionMismatch, OutcomeUnknown),
    ),
    Route(
        "GET",
        LINK_PATH + "/qr",
        link_qr,
        "Draw a link's QR code",
        "Links",
        (
            Success(200, "An image", headers={"ETag": "Of the image."}, media=FORMATS["svg"]),
            Success(200, "An image", headers={"ETag": "Of the image."}, media=FORMATS["png"]),
            Success(304, "The image that you have"),
        ),
        "It says the short URL with `?qr`, which leads where the short URL leads.",
        right=Right.READ,
        parameters=(*QR_STYLE, IF_NONE_MATCH),
        refusals=ONE_LINK,
    ),
    # -- blocked hosts ---------------------------------------------------------------------------------------
    Route(
        "GET",
        "/api/v1/blocklist",
        read_blocklist,
        "How is the list of blocked hosts?",
        "Blocked hosts",
        (Success(200, "The list, and the program that is asked of URLs", BlocklistBody),),
        "Only for admin keys, like everything about blocked hosts. It lists no hosts.",
        right=Right.ADMIN,
        refusals=ADMIN,
    ),
    Route(
        "POST",
        "/api/v1/blocklist/try",
        try_url,
        "May a link lead to this URL?",
        "Blocked hosts",
        (Success(200, "Whether it may", Tried),),
        "Asks as a create does, and makes no link.",
        right=Right.ADMIN,
        body=UrlToTry,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited),
    ),
    Route(
        "GET",
        "/api/v1/blocklist/links",
        list_blocked_links,
        "Which links lead to blocked hosts?",
        "Blocked hosts",
        (Success(200, "Those among the next links", BlockedLinks),),
        f"Links that were made before their hosts were blocked. Reads the next {LINKS_READ:,} links by code, so a "
        "page can be empty: repeat it with `next_cursor` until that is null. A batch disables what was found.",
        right=Right.ADMIN,
        parameters=(ALL_CURSOR,),
        refusals=ADMIN,
    ),
    # -- keys and accounts -----------------------------------------------------------------------------------
    Route(
        "GET",
        "/api/v1/me",
        me,
        "What may this key do?",
        "Keys",
        (Success(200, "The API key of the request", keys.Me),),
        "Takes any valid key.",
        any_key=True,
        refusals=(Unauthorized, Invalid, BadRequest, RateLimited, Unavailable),
    ),
    Route(
        "GET",
        "/api/v1/keys",
        list_keys,
        "List API keys, newest first",
        "Keys",
        (Success(200, "A page of keys, also revoked ones", keys.KeyPage),),
        "Only for admin keys, like everything about keys and accounts.",
        right=Right.ADMIN,
        parameters=(ROWS, ROWS_CURSOR, OF_ACCOUNT),
        refusals=ADMIN,
    ),
    Route(
        "POST",
        "/api/v1/keys",
        create_key,
        "Create an API key",
        "Keys",
        (Success(201, "The key, this once with its secret", keys.NewKeyBody),),
        "Without an `account` the key gets one of its own. If the reply is lost, revoke the key, create another.",
        right=Right.ADMIN,
        body=KeyDraft,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited, OutcomeUnknown),
    ),
    Route(
        "DELETE",
        "/api/v1/keys/{id}",
        revoke_key,
        "Revoke an API key",
        "Keys",
        (Success(204, "Revoked"),),
        "It is refused everywhere within 5 seconds. Its links stay with its account.",
        right=Right.ADMIN,
        refusals=(*ADMIN, NoSuchKey, OutcomeUnknown),
    ),
    Route(
        "GET",
        "/api/v1/accounts",
        list_accounts,
        "List accounts, newest first",
        "Keys",
        (Success(200, "A page of accounts", keys.AccountPage),),
        right=Right.ADMIN,
        parameters=(ROWS, ROWS_CURSOR),
        refusals=ADMIN,
    ),
    Route(
        "POST",
        "/api/v1/accounts",
        create_account,
        "Create an account",
        "Keys",
        (Success(201, "The account", keys.AccountBody, {"Location": "The account's address in this API."}),),
        "Links belong to an account, and each of its keys reaches them.",
        right=Right.ADMIN,
        body=AccountDraft,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited, NameTaken, OutcomeUnknown),
    ),
    Route(
        "GET",
        "/api/v1/accounts/{id}",
        read_account,
        "Read an account and its keys",
        "Keys",
        (Success(200, "The account with a page of its keys", keys.AccountMembers),),
        right=Right.ADMIN,
        parameters=(ROWS, ROWS_CURSOR),
        refusals=(*ADMIN, NoSuchAccount),
    ),
    Route(
        "PATCH",
        "/api/v1/accounts/{id}",
        rename_account,
        "Rename an account",
        "Keys",
        (Success(200, "The account", keys.AccountBody),),
        "Its id, links and keys stay. The own account of a key has the name of the key.",
        right=Right.ADMIN,
        body=AccountDraft,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited, NoSuchAccount, NameTaken, OutcomeUnknown),
    ),
    Route(
        "POST",
        "/api/v1/accounts/{id}/transfer",
        transfer_links,
        "Give an account's links to another",
        "Keys",
        (Success(200, "How far it has come", keys.Transferred),),
        "Gives some thousand links, also deleted ones. Repeat it until it is `complete`, also after a lost reply.",
        right=Right.ADMIN,
        body=TransferBody,
        refusals=(*WRITE, Unauthorized, Forbidden, RateLimited, NoSuchAccount),
    ),
    # -- the cluster -----------------------------------------------------------------------------------------
    Route(
        "GET",
        "/api/v1/ring",
        ring,
        "Show the shards and who holds the slots",
        "Cluster",
        (Success(200, "The ring", responses.Ring),),
        "Only for admin keys: it names the shards.",
        right=Right.ADMIN,
        parameters=(PLACE_OF, OF_LINK, ARCS_ASKED_FOR),
        refusals=(Unauthorized, Forbidden, Invalid, BadRequest, Unavailable),
    ),
    Route(
        "GET",
        "/health/live",
        health_live,
        "Is the process alive?",
        "Cluster",
        (Success(200, "It is", responses.Live),),
        refusals=(Unavailable,),
    ),
    Route(
        "GET",
        "/health/ready",
        health_ready,
        "Can the service work?",
        "Cluster",
        (
            Success(200, "`ok`, or `degraded` with the reason", responses.Ready),
            Success(503, "No link can be reached", responses.Ready),
        ),
    ),
    # -- pages -----------------------------------------------------------------------------------------------
    Route(
        "GET",
        "/",
        home,
        "Start page",
        "Pages",
        (Success(200, "Name and version", responses.Home, {"Link": "Where the documentation is."}),),
    ),
    Route("GET", "/docs", docs, "This page", "Pages", (Success(200, "HTML", media="text/html"),)),
    Route("GET", "/docs/start.js", docs_start, "Starts the viewer of /docs", "Pages", VIEWER_SCRIPT),
    Route("GET", "/docs/swagger-ui-bundle.js", docs_script, "The viewer of /docs", "Pages", VIEWER_SCRIPT),
    Route(
        "GET",
        "/docs/swagger-ui.css",
        docs_style,
        "The style of /docs",
        "Pages",
        (Success(200, "CSS", media="text/css"),),
    ),
    Route("GET", "/openapi.json", openapi, "This API as OpenAPI 3.1", "Pages", (Success(200, "OpenAPI"),)),
    Route(
        "GET",
        "/robots.txt",
        robots,
        "What crawlers may follow",
        "Pages",
        (Success(200, "Rules", media="text/plain"),),
    ),
    Route("GET", "/favicon.ico", favicon, "An icon", "Pages", (Success(200, "SVG", media="image/svg+xml"),)),
)


def _with_domain(route: Route[Handler]) -> Route[Handler]:
    """Adds the domain to the parameters of a route whose path names a link."""
    is_of_link = "{code}" in route.path
    return replace(route, parameters=(OF_LINK, *route.parameters)) if is_of_link else route


ROUTES = tuple(map(_with_domain, _ROUTES))

# `redirect.follow` handles GET and HEAD of it, without `dispatch`.
REDIRECT_PATH = "/{code}"
