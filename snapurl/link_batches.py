"""LinkBatches: one change for many links, named by code or by a query, with a result for each. No SQL, no HTTP.

Each link is changed as by a request of its own: fenced, versioned, and told to the caches. A batch is not a
transaction. What is left after BATCH_S_MAX is refused, so the caller knows what happened to each link. A repeat
goes on, because a change that is made already changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from snapurl.errors import FieldError, Invalid, SnapURLError, Unavailable, VersionMismatch
from snapurl.links import LinkService
from snapurl.model import TAGS_MAX, Link, LinkOrder, LinkPatch, LinkQuery, PageKey

LINKS_MAX = 1_000  # per batch
CHANGES_AT_ONCE = (
    8  # of a batch: fewer than a worker's connections to a shard, all of which could be one shard's
)
BATCH_S_MAX = 15.0
ATTEMPTS = 5  # at a link that others change meanwhile

Result = tuple[str, Link | SnapURLError]


class BatchAction(StrEnum):
    TAGS = "tags"
    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class BatchChange:
    """What to do with each link.

    Tags are removed, then added; if there are tags to remove, links that have none of them are left as they are.
    """

    action: BatchAction
    remove: tuple[str, ...] = ()
    add: tuple[str, ...] = ()

    def patch_of(self, link: Link) -> LinkPatch | None:
        """Returns what to change of a link; None if it is as it should be. Raises Invalid for too many tags."""
        if self.action is not BatchAction.TAGS:
            enabled = self.action is BatchAction.ENABLE
            return None if link.enabled is enabled else LinkPatch(enabled=enabled)
        kept = tuple(tag for tag in link.tags if tag not in self.remove)
        if self.remove and kept == link.tags:
            return None
        tags = (*kept, *(tag for tag in self.add if tag not in kept))
        if len(tags) > TAGS_MAX:
            raise Invalid(fields=(FieldError("/tags", f"the link would have more than {TAGS_MAX} tags"),))
        return None if tags == link.tags else LinkPatch(tags=tags)


@dataclass(frozen=True, slots=True)
class BatchPage:
    """The results for a page of a query. `after` is where the next batch begins, None if none is left.

    The links of the `silent` shards were not changed.
    """

    results: list[Result]
    after: PageKey | None
    silent: tuple[str, ...]


class LinkBatches:
    """Changes many links. `owner` is whose links the caller may change, None for all; `by` is the caller's
    key_id."""

    def __init__(self, links: LinkService, clock_s: Callable[[], float] = monotonic) -> None:
        self._links = links
        self._clock_s = clock_s

    async def change(
        self, batch: BatchChange, codes: Sequence[str], owner: str | None, by: str = ""
    ) -> list[Result]:
        """Returns one result per code, in their order."""
        end_s = self._clock_s() + BATCH_S_MAX
        permits = asyncio.Semaphore(CHANGES_AT_ONCE)

        async def change(code: str) -> Result:
            async with permits:
                if self._clock_s() >= end_s:
                    late = "the batch took too long, and this link was not changed: send it again"
                    return code, Unavailable(late, is_public=True, retry_after_s=1.0)
                try:
                    return code, await self._change(batch, code, owner, by)
                except SnapURLError as refusal:
                    return code, refusal

        return await asyncio.gather(*map(change, codes))

    async def change_found(
        self, batch: BatchChange, query: LinkQuery, after: PageKey | None, by: str = ""
    ) -> BatchPage:
        """Changes up to LINKS_MAX links of a query that is sorted by code. Raises Unavailable."""
        assert query.order is LinkOrder.CODE
        page = await self._links.page(query, LINKS_MAX, after)
        results = await self.change(batch, [link.code for link in page.links], query.owner, by)
        return BatchPage(results, page.after, page.silent)

    async def _change(self, batch: BatchChange, code: str, owner: str | None, by: str) -> Link:
        match batch.action:
            case BatchAction.DELETE:
                return await self._links.delete(code, None, owner, by)
            case BatchAction.RESTORE:
                return await self._links.restore(code, None, owner, by)
            case BatchAction.TAGS | BatchAction.ENABLE | BatchAction.DISABLE:
                return await self._patch(batch, code, owner, by)

    async def _patch(self, batch: BatchChange, code: str, owner: str | None, by: str) -> Link:
        for attempt in range(ATTEMPTS):
            link = await self._links.get(code, owner)
            patch = batch.patch_of(link)
            if patch is None:
                return link
            try:
                return await self._links.change(code, patch, link.version, owner, by)
            except VersionMismatch:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")
