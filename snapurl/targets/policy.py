"""TargetPolicy: whether links may lead somewhere, by the blocked hosts and the URL command.

Every way in which a target comes to a link asks here: creates, changes, imports, renames, and what makes an old
target live again, restoring and enabling. A link has several targets: its URL, where it leads once it has expired,
and those of its rules. A redirect never asks: links to a host that is blocked later go on, until an operator finds
and disables them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

from snapurl.errors import BlockedTarget, FieldError, SnapURLError, Unavailable
from snapurl.model import LinkFields
from snapurl.targets.blocked_hosts import BlockedHosts, BlocklistState
from snapurl.targets.url_command import UrlCommand
from snapurl.telemetry.metrics import TARGETS_REFUSED

LINKS_AT_ONCE = 8  # of a call of many, whose URLs the command is asked at a time: others get their turn
LINKS_PER_ITERATION = 64  # of the event loop, whose hosts are looked up
HOST_BLOCKED = "leads to a host that is blocked here"
COMMAND_REFUSED = "leads to a page that is not allowed here"
_HOST = re.compile(r"https?://(\[[^\]]*\]|[^/:?#]*)")


class TargetPolicy:
    """Whether links may lead somewhere. Without a list and a command they may lead anywhere."""

    def __init__(self, hosts: BlockedHosts | None = None, command: UrlCommand | None = None) -> None:
        self._hosts = hosts
        self._command = command

    @property
    def is_open(self) -> bool:
        """Whether every target is allowed, so that nothing needs to be asked."""
        return self._hosts is None and self._command is None

    @property
    def faults(self) -> dict[str, str | None]:
        """What is wrong with each part that there is, None if nothing is."""
        parts = {"blocklist": self._hosts, "url_check": self._command}
        return {name: part.fault for name, part in parts.items() if part is not None}

    @property
    def blocklist(self) -> BlocklistState | None:
        """The list of this worker, None if there is none."""
        return None if self._hosts is None else self._hosts.state

    async def check(self, link: LinkFields) -> None:
        """Raises BlockedTarget, which names each field with such a target, and Unavailable."""
        if self.is_open:
            return
        targets = targets_of(link)
        refused = [FieldError(pointer, HOST_BLOCKED) for pointer in self._blocked_of(targets)]
        if refused:
            TARGETS_REFUSED.labels("host").inc()
            raise BlockedTarget(fields=tuple(refused))
        if self._command is None:
            return
        for pointer, url in targets:
            verdict = await self._command.verdict(url)
            if not verdict.is_allowed:
                refused.append(FieldError(pointer, verdict.reason or COMMAND_REFUSED))
        if refused:
            TARGETS_REFUSED.labels("command").inc()
            raise BlockedTarget(fields=tuple(refused))

    async def refusals(self, links: Sequence[LinkFields]) -> dict[int, SnapURLError]:
        """Returns why links may not lead where they do, by their places."""
        if self.is_open:
            return {}
        found: dict[int, SnapURLError] = {}

        async def check(place: int) -> None:
            try:
                await self.check(links[place])
            except (BlockedTarget, Unavailable) as refusal:
                found[place] = refusal

        step = LINKS_PER_ITERATION if self._command is None else LINKS_AT_ONCE
        for first in range(0, len(links), step):
            await asyncio.gather(*map(check, range(first, min(first + step, len(links)))))
        return found

    def blocked(self, link: LinkFields) -> list[str]:
        """Returns the targets of a link whose hosts are blocked now. Raises Unavailable."""
        targets = targets_of(link)
        pointers = self._blocked_of(targets)
        return [url for pointer, url in targets if pointer in pointers]

    def _blocked_of(self, targets: Sequence[tuple[str, str]]) -> list[str]:
        hosts = self._hosts
        return [] if hosts is None else [pointer for pointer, url in targets if hosts.has(_host(url))]


def targets_of(link: LinkFields) -> list[tuple[str, str]]:
    """Returns the targets of a link in their stored form, each with the JSON pointer to its field."""
    found = [("/url", link.url)] if link.url else []
    if link.expired_url:
        found.append(("/expired_url", link.expired_url))
    if link.rules:
        rules = json.loads(link.rules)
        found += [(f"/rules/{place}/url", rule["url"]) for place, rule in enumerate(rules)]
    return found


def _host(url: str) -> str:
    """Returns the host of a URL in its stored form, which names neither user nor password."""
    match = _HOST.match(url)
    assert match is not None, "the URL is not as it is stored"
    return match[1]
