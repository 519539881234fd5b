"""Bodies of requests that change many links: batches, and the renaming of a tag."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from snapurl.codes import CODE_CHARS_MAX, is_code, key_of
from snapurl.http.schema.requests import (
    CURSOR_CHARS_MAX,
    TEXT_CHARS_MAX,
    AnyDomain,
    Body,
    Tag,
    Tags,
    read_moment,
    read_words,
)
from snapurl.link_batches import LINKS_MAX, BatchAction, BatchChange
from snapurl.model import LinkOrder, LinkQuery, LinkState


def _code(text: str) -> str:
    if not is_code(text):
        raise ValueError("is not a code")
    return text


def _unique(codes: list[str]) -> list[str]:
    if len(set(codes)) != len(codes):
        raise ValueError("must not repeat a code")
    return codes


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return read_moment(value)


def _words(text: str) -> str:
    return read_words(text.strip(), TEXT_CHARS_MAX)


Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Code = Annotated[
    str, AfterValidator(_code), Field(json_schema_extra={"pattern": f"^[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}$"})
]


class LinkFilter(Body):
    """Which links: they must meet every condition, as those of the parameters of the same names of the list."""

    q: Annotated[str, AfterValidator(_words), Field(min_length=1, max_length=TEXT_CHARS_MAX)] | None = None
    tags_any: Tags = Field(default_factory=list)
    tags_all: Tags = Field(default_factory=list)
    tags_none: Tags = Field(default_factory=list)
    state: Annotated[LinkState, Field(strict=False)] | None = None
    account: str | None = None
    creator: str | None = None
    domain: Annotated[AnyDomain, Field(description="Links of this domain. Left out: of all.")] | None = None
    created_from: Time | None = None
    created_to: Time | None = None
    changed_from: Time | None = None
    changed_to: Time | None = None
    expires_from: Time | None = None
    expires_to: Time | None = None

    def as_query(self, owner: str | None, state: LinkState | None) -> LinkQuery:
        """Returns the query, by code. Unless the filter has a state, it is `state`."""
        values = {name: value for name in self.model_fields_set if (value := getattr(self, name))}
        values |= {
            name: tuple(values[name]) for name in ("tags_any", "tags_all", "tags_none") if name in values
        }
        values["text"] = values.pop("q", None)
        values.setdefault("state", state)
        values["domain"] = self.domain  # "" for the default one
        return LinkQuery(owner=owner, order=LinkOrder.CODE, ascending=True, **values)


class LinkBatch(Body):
    """One change for up to 1,000 links: those with the codes, or those that meet the filter."""

    action: Literal["tag", "untag", "enable", "disable", "delete", "restore"]
    tags: Annotated[Tags, Field(description="To add or to remove, for `tag` and `untag`.")] = Field(
        default_factory=list
    )
    codes: (
        Annotated[
            list[Code],
            Field(min_length=1, max_length=LINKS_MAX, json_schema_extra={"uniqueItems": True}),
            AfterValidator(_unique),
        ]
        | None
    ) = None
    domain: AnyDomain | None = None
    filter: LinkFilter | None = None
    dry_run: Annotated[bool, Field(description="Only count the links of the filter.")] = False
    confirm: Annotated[int, Field(ge=0, description="How many links the filter has, as counted.")] | None = (
        None
    )
    cursor: (
        Annotated[str, Field(max_length=CURSOR_CHARS_MAX, description="`next_cursor` of the batch before.")]
        | None
    ) = None

    @model_validator(mode="after")
    def _agree(self) -> LinkBatch:
        if (self.codes is None) is (self.filter is None):
            raise ValueError("must have either codes or a filter")
        if bool(self.tags) is not (self.action in ("tag", "untag")):
            raise ValueError("must have tags for the actions tag and untag, and only for these")
        if self.domain is not None and self.codes is None:
            raise ValueError("must have the domain in the filter, if there is one")
        ways = [self.dry_run, self.confirm is not None, self.cursor is not None]
        if sum(ways) != (self.filter is not None):
            raise ValueError(
                "must have one of dry_run, confirm and cursor with a filter, and none with codes"
            )
        return self

    def keys(self) -> list[str] | None:
        """Returns the keys of the codes."""
        return None if self.codes is None else [key_of(self.domain or "", code) for code in self.codes]

    def as_batch(self) -> BatchChange:
        match self.action:
            case "tag":
                return BatchChange(BatchAction.TAGS, add=tuple(self.tags))
            case "untag":
                return BatchChange(BatchAction.TAGS, remove=tuple(self.tags))
            case "enable" | "disable":
                return BatchChange(BatchAction.ENABLE if self.action == "enable" else BatchAction.DISABLE)
            case "delete":
                return BatchChange(BatchAction.DELETE)
            case "restore":
                return BatchChange(BatchAction.RESTORE)

    def query(self, owner: str | None) -> LinkQuery:
        """Returns the query of the filter."""
        assert self.filter is not None
        return self.filter.as_query(owner, LinkState.DELETED if self.action == "restore" else None)


class TagName(Body):
    """The new name of a tag."""

    tag: Tag
