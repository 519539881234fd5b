"""Request bodies: from bytes to checked values, or a refusal that points at each field. Pure.

Schemas are strict: no unknown field, no "42" for 42, no control character in any string. What depends on the
deployment or on the time (own domains, "in the past") is passed in as `Rules`.

A draft has a fast path besides its schema: `_sound_draft`. What that does not accept, or does not know, is checked
by the schema, which has the last word and reports the errors.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from snapurl.codes import CODE_CHARS_MAX, is_code, is_reserved
from snapurl.domains import Domains
from snapurl.errors import BadRequest, FieldError, Invalid
from snapurl.model import EXPIRY_NOT_IN_FUTURE, TAGS_MAX, Draft, LinkPatch
from snapurl.urls import UrlPolicy

TITLE_CHARS_MAX = 300
TAG_CHARS_MAX = 50
NOTE_CHARS_MAX = 2_000
PASSWORD_CHARS_MIN, PASSWORD_CHARS_MAX = 4, 200
CLICKS_MAX = 1_000_000_000  # of `max_clicks`
TEXT_CHARS_MAX = 200  # of a search
CURSOR_CHARS_MAX = 300
ERRORS_MAX = 20  # reported per body
POINTER_CHARS_MAX = 200
DEPTH_MAX = 16  # of nesting in a body; the schemas need four levels
RULES_MAX = 20
RULES_CHARS_MAX = 16_384  # of the rules of a link together, as JSON
RULES_VALUES_MAX = 600  # JSON values of rules in a body, besides LINK_VALUES_MAX per link
CHOICES_MAX = 20  # values of one condition
LINK_VALUES_MAX = (
    64  # JSON values per link; the schema has 35 with all tags and no rules, and a refusal names 20 errors
)

ID_PATTERN = "^(acc_)?[0-9A-Za-z]{10}$"  # of accounts and keys

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a body is checked against besides its schema. With `now` None an expiry may be in the past."""

    urls: UrlPolicy
    domains: Domains
    now: datetime | None


# -- the types of fields -----------------------------------------------------------------------------------------


def _rules(info: ValidationInfo) -> Rules:
    assert isinstance(info.context, Rules), "bodies are checked through `check`"
    return info.context


def _plain(text: str) -> str:
    """Refuses control characters and lone surrogates, which no database or header accepts."""
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _plain_lines(text: str) -> str:
    """As `_plain`, for a text of several lines."""
    _plain(text.replace("\n", "").replace("\t", ""))
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _target(text: str, info: ValidationInfo) -> str:
    return _check_target(text, _rules(info))


def _check_target(text: str, rules: Rules) -> str:
    """Returns the URL in its stored form, without the spaces that pasting leaves around it. Raises UrlRefused."""
    return rules.urls.check(text.strip())


def _alias(text: str) -> str:
    if not is_code(text):
        raise ValueError(f"must be 1 to {CODE_CHARS_MAX} of the characters A-Z a-z 0-9 _ -")
    if is_reserved(text):
        raise ValueError("is reserved for the service itself")
    return text


def _domain(text: str, info: ValidationInfo) -> str:
    return _rules(info).domains.read(text)


def _any_domain(text: str, info: ValidationInfo) -> str:
    return _rules(info).domains.find(text)


def _moment(value: object) -> datetime:
    """Reads an RFC 3339 date-time with its offset, as UTC."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if not _MOMENT.fullmatch(value):
        raise ValueError("must be an RFC 3339 date and time with its offset, as in 2030-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not a date and time that exists") from None


def _in_future(moment: datetime, info: ValidationInfo) -> datetime:
    return _check_future(moment, _rules(info))


def _check_future(moment: datetime, rules: Rules) -> datetime:
    if rules.now is not None and moment <= rules.now:
        raise ValueError(EXPIRY_NOT_IN_FUTURE)
    return moment


def _unique(tags: list[str]) -> tuple[str, ...]:
    if len(set(tags)) != len(tags):
        raise ValueError("must not repeat a tag")
    return tuple(tags)


AccountId = Annotated[
    str,
    Field(
        max_length=14,
        description="Id of an account, or of a key that has an account of its own.",
        examples=["acc_7Fq2xWm0bZ"],
        json_schema_extra={"pattern": ID_PATTERN},
    ),
]
Target = Annotated[
    str,
    AfterValidator(_target),
    Field(
        min_length=1,
        description="Where the link leads: http or https, not this service itself, no user name in it.",
        examples=["https://example.org/a/long/page"],
        json_schema_extra={"format": "uri"},
    ),
]
Alias = Annotated[
    str,
    AfterValidator(_alias),
    Field(
        description="The code you want; one is made up if you leave it out. Reserved words are refused.",
        examples=["spring-sale"],
        json_schema_extra={"pattern": f"^[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}$"},
    ),
]
Domain = Annotated[
    str,
    AfterValidator(_domain),
    Field(
        description="The domain of the link: one of this service's. Left out: that of its base URL.",
        examples=["go.example.org"],
    ),
]
AnyDomain = Annotated[
    str,
    AfterValidator(_any_domain),
    Field(
        description="A domain, also one that only links still have. Left out: that of the base URL.",
        examples=["go.example.org"],
    ),
]
Expiry = Annotated[
    datetime,
    BeforeValidator(_moment),
    AfterValidator(_in_future),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "From then on the link answers 410, or leads to `expired_url`. RFC 3339 with an offset, "
            "in the future.",
            "examples": ["2099-12-31T23:59:59Z"],
        }
    ),
]
Start = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "Until then the link answers 404 (`not-yet`). RFC 3339 with an offset.",
            "examples": ["2030-01-31T12:00:00Z"],
        }
    ),
]
ExpiredTarget = Annotated[
    str,
    AfterValidator(_target),
    Field(
        min_length=1,
        description="Where the link leads once it has expired, instead of 410. Those redirects are no clicks.",
        examples=["https://example.org/the-sale-is-over"],
        json_schema_extra={"format": "uri"},
    ),
]
Enabled = Annotated[
    bool,
    Field(
        description="False: the link answers 404 (`switched-off`) and keeps all its data.",
        examples=[True],
    ),
]
ForwardQuery = Annotated[
    bool,
    Field(
        description="The query of the short URL reaches the target. A parameter replaces those of the same name "
        "there.",
        examples=[True],
    ),
]
ForwardPath = Annotated[
    bool,
    Field(description="`/{code}/rest` leads to the target with `/rest` behind its path.", examples=[True]),
]
MaxClicks = Annotated[
    int,
    Field(
        ge=1,
        le=CLICKS_MAX,
        description="How many times the link redirects. Then it answers 410, or leads to `expired_url`. HEAD, "
        "prefetches and bots use none up. Counted from the first change or create that sets it.",
        examples=[100],
    ),
]
Password = Annotated[
    str,
    StringConstraints(min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX),
    AfterValidator(_plain),
    Field(
        description="Whoever follows the link is asked for it. It is stored as a hash and never shown.",
        examples=["correct horse battery staple"],
        json_schema_extra={"format": "password", "writeOnly": True},
    ),
]
Note = Annotated[
    str,
    StringConstraints(max_length=NOTE_CHARS_MAX),
    AfterValidator(_plain_lines),
    Field(description="A longer note for people, of several lines."),
]
Title = Annotated[
    str,
    AfterValidator(_plain),
    Field(max_length=TITLE_CHARS_MAX, description="A note for people.", examples=["Spring sale"]),
]
Tag = Annotated[
    str,
    StringConstraints(min_length=1, max_length=TAG_CHARS_MAX),
    AfterValidator(_plain),
    AfterValidator(_not_blank),
]
Tags = Annotated[
    list[Tag],
    Field(max_length=TAGS_MAX),  # the first, so that the surplus is not even checked
    AfterValidator(_unique),
    Field(
        description="Words to find the link by, none of them twice.",
        examples=[["sale", "2030"]],
        json_schema_extra={"uniqueItems": True},
    ),
]
RedirectStatus = Annotated[
    Literal[301, 302, 307, 308], Field(description="The status of the redirect.", examples=[302])
]


# -- query parameters ----------------------------------------------------------------------------------------


def read_moment(text: str) -> datetime:
    """Returns an RFC 3339 date-time with its offset, as UTC. Raises ValueError."""
    return _moment(text)


def read_words(text: str, chars_max: int) -> str:
    """Returns text of 1 to `chars_max` characters that is not blank. Raises ValueError."""
    if len(text) > chars_max:
        raise ValueError(f"must have at most {chars_max} characters")
    return _not_blank(_plain(text))


# -- rules ---------------------------------------------------------------------------------------------------


class Body(BaseModel):
    """Strict and closed: an unknown field is an error."""

    # Built when they are first used, not by each worker before it serves.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # KeyError: there is none; the others: it is a path
        raise ValueError("is not the name of a time zone, as in Europe/Berlin") from None
    return name


Choice = TypeVar("Choice")
Choices = Annotated[list[Choice], Field(min_length=1, max_length=CHOICES_MAX)]
Device = Literal["mobile", "tablet", "desktop"]
System = Literal["android", "ios", "windows", "macos", "linux", "chromeos"]
Family = Literal["chrome", "edge", "firefox", "opera", "safari", "samsung"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Hour = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,3}$")]
Parameter = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_plain)]
Instant = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}),
]


class Times(Body):
    """Weekdays and hours. From `end` before `start` on, the hours go past midnight and belong to the day they begin
    on."""

    weekdays: Choices[Weekday] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    start: Hour = "00:00"
    end: Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")] = "24:00"
    time_zone: Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)] = "UTC"

    @model_validator(mode="after")
    def _lasts(self) -> Times:
        if self.start == self.end:
            raise ValueError("must not end when it starts")
        return self


class Conditions(Body):
    """What must hold, all of it. Of a list one value must fit."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    device: Choices[Device] | None = Field(None, description="Kind of device.")
    os: Choices[System] | None = Field(None, description="Operating system.")
    browser: Choices[Family] | None = Field(None, description="Browser family.")
    language: Choices[Language] | None = Field(
        None, description="The language that the browser prefers: `de` includes `de-AT`."
    )
    query: (
        Annotated[dict[Parameter, Parameter | None], Field(min_length=1, max_length=CHOICES_MAX)] | None
    ) = Field(None, description="Parameters of the short URL and their values; null: any value.")
    after: Instant | None = Field(None, description="From then on.")
    before: Instant | None = Field(None, description="Until then.")
    schedule: Times | None = None
    percentage: Annotated[int, Field(ge=1, le=99)] | None = Field(
        None,
        description="Of those whom no rule before takes. A visitor stays on the same side for a day (UTC).",
    )

    @model_validator(mode="after")
    def _something(self) -> Conditions:
        if not _given(self):
            raise ValueError("must name at least one condition")
        return self


class LinkRule(Body):
    """Where the link leads those for whom the conditions hold."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=False)

    conditions: Conditions = Field(alias="if")
    url: Target


def _as_text(rules: list[LinkRule]) -> str | None:
    """Returns the rules as they are stored: JSON with what was given. None for no rules."""
    given = [{"if": _given(rule.conditions), "url": rule.url} for rule in rules]
    text = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    if len(text) > RULES_CHARS_MAX:
        raise ValueError(f"must have at most {RULES_CHARS_MAX} characters together, as JSON")
    return text if rules else None


def _given(conditions: Conditions) -> dict[str, Any]:
    found = conditions.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in found.items() if value is not None}


RuleList = Annotated[
    list[LinkRule],
    Field(
        max_length=RULES_MAX,
        description="The first rule whose conditions hold says where the link leads; else `url` does.",
    ),
    AfterValidator(_as_text),
]


# -- the bodies ----------------------------------------------------------------------------------------------


class LinkDraft(Body):
    """A link to be created."""

    url: Target
    alias: Alias | None = None
    account: AccountId | None = None
    expires_at: Expiry | None = None
    title: Title | None = None
    tags: Tags = []
    redirect_status: RedirectStatus = 302
    enabled: Enabled = True
    starts_at: Start | None = None
    expired_url: ExpiredTarget | None = None
    note: Note | None = None
    forward_query: ForwardQuery = False
    forward_path: ForwardPath = False
    max_clicks: MaxClicks | None = None
    password: Password | None = None
    rules: RuleList | None = None
    domain: Domain | None = None

    def as_draft(self) -> Draft:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return Draft(**given | {"domain": self.domain or None})


def _no_defaults(schema: dict[str, Any]) -> None:
    """Removes the defaults from the schema of a change: a generated client would send them."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        field.pop("default", None)


class LinkChange(Body):
    """What to change of a link; fields left out stay, and null clears those that may be left out of a draft."""

    model_config = ConfigDict(json_schema_extra=_no_defaults)

    url: Target = ""
    title: Title | None = None
    tags: Tags = []
    expires_at: Expiry | None = None
    redirect_status: RedirectStatus = 302
    enabled: Enabled = True
    starts_at: Start | None = None
    expired_url: ExpiredTarget | None = None
    note: Note | None = None
    forward_query: ForwardQuery = False
    forward_path: ForwardPath = False
    max_clicks: MaxClicks | None = None
    password: Password | None = None
    rules: RuleList | None = None

    @model_validator(mode="after")
    def _something(self) -> LinkChange:
        if not self.model_fields_set:
            raise ValueError("must name at least one field to change")
        return self

    def as_patch(self) -> LinkPatch:
        return LinkPatch(**{name: getattr(self, name) for name in self.model_fields_set})


class Rename(Body):
    """The new code of a link, and what becomes of the old one."""

    code: Alias
    old: Annotated[
        Literal["redirect", "give-up"],
        Field(
            description="`redirect`: the old code goes on leading to the target. `give-up`: it is deleted, and "
            "answers 410."
        ),
    ] = "redirect"


class Bulk(Body):
    """Up to 1,000 links to be created; each is checked and answered on its own, as a `LinkDraft`."""

    links: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=1_000,
            description="`LinkDraft`s. Anything else is refused by itself, in its own place of the answer.",
            json_schema_extra={"items": {"anyOf": [{"$ref": "#/components/schemas/LinkDraft"}, {}]}},
        ),
    ]


# -- from bytes to a body ----------------------------------------------------------------------------------------

B = TypeVar("B", bound=BaseModel)


def parse_json(raw: bytes, values_max: int) -> object:
    """Returns the JSON value of a request.

    Raises BadRequest, also where two parsers could read it differently, and before parsing for more than
    `values_max` values.
    """
    if raw.startswith(codecs.BOM_UTF8):
        raise BadRequest("the body begins with a byte order mark (BOM): send it without")
    if not _has_at_most(raw, values_max):
        raise BadRequest(f"the body holds more than {values_max} JSON values")
    try:
        value: object = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # an integer of thousands of digits
        raise BadRequest("the body holds a number that cannot be read") from None
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and _deeper_than(value, DEPTH_MAX):
        raise BadRequest("the body is nested too deeply")
    return value


def values_at_most(raw: bytes) -> int:
    """Returns how many JSON values `raw` holds at most, without parsing it.

    Each value but the first follows a comma or the start of its array or object. Those within strings count too.
    """
    return 1 + raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _has_at_most(raw: bytes, values_max: int) -> bool:
    """Whether `raw` holds at most `values_max` JSON values. Stops at that number of tokens."""
    if values_at_most(raw) <= values_max:
        return True
    separators = strings = 0
    for token in _TOKEN.finditer(raw):
        if raw[token.start()] == _QUOTE:
            strings += 1
        else:
            separators += 1
        if separators >= values_max or strings > 2 * values_max:  # a value has at most one name
            return False
    return True


def check(model: type[B], value: object, rules: Rules) -> B:
    """Returns `value` as a body of that type. Raises Invalid, which lists the errors of each field."""
    try:
        return model.model_validate(_without_surplus(model, value), context=rules)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise Invalid(fields=tuple(_field_error(item) for item in details[:ERRORS_MAX])) from None


def _without_surplus(model: type[B], value: object) -> object:
    """Returns `value` without the unknown fields beyond the first ERRORS_MAX, whose errors nobody would see."""
    if not isinstance(value, dict) or len(value) <= ERRORS_MAX:
        return value
    known = {name: value[name] for name in model.model_fields if name in value}
    unknown = (item for item in value.items() if item[0] not in model.model_fields)
    return known | dict(islice(unknown, ERRORS_MAX))


def draft_of(value: object, rules: Rules) -> Draft:
    """Returns `value` as the draft of a link. Raises Invalid as `check` does."""
    draft = _sound_draft(value, rules)
    return check(LinkDraft, value, rules).as_draft() if draft is None else draft


def _sound_draft(value: object, rules: Rules) -> Draft | None:
    """Returns the draft if every field is sound, for a fifth of what the schema costs; else None."""
    if type(value) is not dict or not value.keys() <= _FAST_FIELDS:
        return None
    alias, title, expires_at = value.get("alias"), value.get("title"), value.get("expires_at")
    status = value.get("redirect_status", 302)
    if type(status) is not int or status not in _STATUSES:
        return None
    try:
        return Draft(
            url=_check_target(_text(value.get("url")), rules),
            alias=None if alias is None else _alias(_text(alias)),
            title=None if title is None else _plain(_text(title, TITLE_CHARS_MAX)),
            tags=_sound_tags(value["tags"]) if "tags" in value else (),
            redirect_status=status,
            expires_at=None if expires_at is None else _check_future(_moment(expires_at), rules),
        )
    except ValueError:
        return None


_FAST_FIELDS = frozenset(["url", "alias", "title", "tags", "redirect_status", "expires_at"])
"""What `_sound_draft` reads. A draft with any other field is left to the schema."""

_STATUSES = frozenset(get_args(get_args(RedirectStatus)[0]))


def _text(value: object, chars_max: int | None = None) -> str:
    if type(value) is not str or (chars_max is not None and len(value) > chars_max):
        raise ValueError
    return value


def _sound_tags(value: object) -> tuple[str, ...]:
    if type(value) is not list or len(value) > TAGS_MAX:
        raise ValueError
    return _unique([_not_blank(_plain(_text(tag, TAG_CHARS_MAX))) for tag in value])


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("the body names a field twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is not JSON: {name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
_TOKEN = re.compile(rb'"(?>(?:[^"\\]++|\\.)*)"?|[,\[{]', re.DOTALL)
"""A string, also one without an end, or what comes before a value."""
_QUOTE = ord('"')


def _deeper_than(value: object, levels: int) -> bool:
    """Whether `value` nests deeper than `levels`. Stops at that level."""
    level = [value]
    for _ in range(levels + 1):
        nests = [each for each in level if isinstance(each, dict | list)]
        if not nests:
            return False
        level = [child for nest in nests for child in (nest.values() if isinstance(nest, dict) else nest)]
    return True


_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this schema",
    "string_type": "must be a string",
    "string_unicode": "must not contain control characters",
    "list_type": "must be an array",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be one of {expected}",
    "dict_type": "must be an object",
    "string_pattern_mismatch": "does not have the form that is asked for",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character(s)",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} item(s)",
}


def _field_error(item: ErrorDetails) -> FieldError:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in item["loc"])
    pointer = "".join("/" + part for part in parts)
    words = _WORDS.get(item["type"])
    detail = words.format(**item.get("ctx", {})) if words else item["msg"].removeprefix("Value error, ")
    return FieldError(pointer[:POINTER_CHARS_MAX], detail)
