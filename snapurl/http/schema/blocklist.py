"""Bodies of the list of blocked hosts: its state, a URL that is tried, and the links to blocked hosts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from snapurl.domains import Domains
from snapurl.http.schema.requests import Body, Target
from snapurl.http.schema.responses import Answer, LinkBody, link_body
from snapurl.model import Link


class BlocklistBody(Answer):
    """The list as the worker that answers has it."""

    hosts: int | None = Field(ge=0, description="Hosts in the list; null before the first was loaded.")
    unread_lines: int = Field(ge=0, description="Lines of the file that name no host.")
    loaded_at: datetime | None = Field(description="When the list was loaded.")
    fault: str | None = Field(description="Why the file cannot be read now; the list before it stays.")
    has_file: bool = Field(description="Whether `SNAPURL_BLOCKED_HOSTS_FILE` is set.")
    has_command: bool = Field(description="Whether `SNAPURL_URL_CHECK_COMMAND` is set.")
    command_fault: str | None = Field(description="Why the command has not answered last.")


class UrlToTry(Body):
    """A URL to which a link might lead."""

    url: Target


class Tried(Answer):
    """Whether a link may lead to the URL."""

    allowed: bool
    by: Literal["host", "command"] | None = Field(description="What refuses it.")
    reason: str | None = Field(description="What a client is told.")


class BlockedLink(Answer):
    link: LinkBody
    targets: list[str] = Field(description="Those of its targets whose hosts are blocked.")


class BlockedLinks(Answer):
    """The links to blocked hosts among those that were read."""

    links: list[BlockedLink]
    read: int = Field(ge=0, description="How many links were read for this page.")
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")
    complete: bool = Field(description="False: some links cannot be reached now.")


def blocked_link_body(link: Link, targets: Sequence[str], domains: Domains) -> dict[str, Any]:
    """Returns a `BlockedLink`."""
    return {"link": link_body(link, domains), "targets": list(targets)}
