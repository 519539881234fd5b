"""LinkImports: creates links that come from another service, under their codes there. No SQL, no HTTP.

An import may be interrupted anywhere and repeated as a whole. A link with a code is there already if its code leads
to its URL. The code of a link without one is derived from its `import_id`, and the row keeps that as its token: a
repeat finds its own row, also after the link has been changed. Imported links are not put into the caches; what the
caches may have of their codes, that there is no such link, is invalidated.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from msgspec import Struct

from snapurl.cache.reader import LinkCache
from snapurl.codes import derived_code, key_of
from snapurl.errors import AliasTaken, NotFound, SnapURLError
from snapurl.links import CODE_ATTEMPTS, failure_of, no_free_code
from snapurl.model import CachedLink, Draft, Failed, Imported, ImportedDay, NewLink, Origin, Taken
from snapurl.store.links import LinkStore
from snapurl.store.tokens import random_tokens
from snapurl.targets.policy import TargetPolicy

DELETED = "the code was that of a deleted link"


class _Pending(Struct):
    draft: Draft
    origin: Origin
    token: uuid.UUID

    def key(self, attempt: int) -> str:
        return key_of(self.draft.domain or "", self.draft.alias or derived_code(self.token, attempt))


class LinkImports:
    """Creates links that come from elsewhere. `owner` is the id of an account, `by` the key_id of the importer."""

    def __init__(
        self,
        store: LinkStore,
        cache: LinkCache,
        targets: TargetPolicy | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._targets = targets or TargetPolicy()

    async def run(
        self, links: Sequence[tuple[Draft, Origin]], owner: str, by: str
    ) -> list[Imported | SnapURLError]:
        """Returns one result per link, in their order."""
        results: list[Imported | SnapURLError] = [no_free_code()] * len(links)
        pending = dict(enumerate(_pending(links)))
        for place, refusal in (await self._refusals(links)).items():
            results[place] = refusal
            del pending[place]
        for attempt in range(CODE_ATTEMPTS):
            if not pending:
                break
            pending = await self._attempt(attempt, pending, owner, by, results)
        return results

    async def _attempt(
        self,
        attempt: int,
        pending: dict[int, _Pending],
        owner: str,
        by: str,
        results: list[Imported | SnapURLError],
    ) -> dict[int, _Pending]:
        """Attempts all of them, in one call per shard. Returns those whose derived code was taken."""
        new = [
            NewLink(each.key(attempt), each.draft, each.draft.account or owner, each.token, by, each.origin)
            for each in pending.values()
        ]
        made = await self._store.import_many(new)
        again: dict[int, _Pending] = {}
        created: list[str] = []
        for (place, each), item, result in zip(pending.items(), new, made, strict=True):
            match result:
                case None:
                    results[place] = Imported(item.code, is_new=True)
                    if each.draft.alias is not None:
                        created.append(item.code)
                case Taken(is_own=True):
                    results[place] = _own(result)
                    if each.draft.alias is not None:  # it may have been made by a call whose reply was lost
                        created.append(item.code)
                case Taken() if each.draft.alias is not None:
                    results[place] = _present(result.code, result.url, each.draft)
                case Taken():
                    again[place] = each
                case Failed():
                    results[place] = failure_of(result)
        await self._cache.created(created)
        return again

    async def visits(self, links: Mapping[str, Sequence[ImportedDay]]) -> dict[str, SnapURLError | None]:
        """Writes what another service counted by day, in place of what is there of the same days.

        `links` are by key. Returns None for each that is done, so a repeat does no harm. Apart from clicks here.
        """
        days = [day for each in links.values() for day in each]
        results: dict[str, SnapURLError | None] = dict.fromkeys(links)
        for day, found in zip(days, await self._store.import_days(days), strict=True):
            if isinstance(found, Failed):
                results[day.code] = failure_of(found)
            elif not found:
                results[day.code] = NotFound()
        return results

    async def foresee(self, links: Sequence[tuple[Draft, Origin]]) -> list[Imported | SnapURLError]:
        """Returns what `run` would return now, and writes nothing. Raises Unavailable."""
        keys = [each.key(0) for each in _pending(links)]
        found = await asyncio.gather(*map(self._store.find, keys))
        refusals = await self._refusals(links)
        return [
            refusals.get(place) or _foreseen(key, there, draft)
            for place, ((draft, _), key, there) in enumerate(zip(links, keys, found, strict=True))
        ]

    async def _refusals(self, links: Sequence[tuple[Draft, Origin]]) -> dict[int, SnapURLError]:
        return await self._targets.refusals([draft for draft, _ in links])


def _pending(links: Sequence[tuple[Draft, Origin]]) -> list[_Pending]:
    tokens = random_tokens(len(links))
    return [
        _Pending(draft, origin, origin.import_id or token)
        for (draft, origin), token in zip(links, tokens, strict=True)
    ]


def _foreseen(key: str, there: CachedLink, draft: Draft) -> Imported | SnapURLError:
    """Returns what becomes of a link if `there` is what its key leads to now."""
    url = None if there.deleted else there.url
    if there.is_missing or (draft.alias is None and url != draft.url):
        return Imported(key, is_new=True)
    return _present(key, url, draft)


def _own(there: Taken) -> Imported | SnapURLError:
    """Returns what becomes of a link that an earlier run has made; it may have been changed since."""
    return AliasTaken(DELETED) if there.url is None else Imported(there.code, is_new=False)


def _present(key: str, url: str | None, draft: Draft) -> Imported | SnapURLError:
    """Returns what becomes of a link whose code leads to `url`, None: to a deleted link."""
    if url == draft.url:
        return Imported(key, is_new=False)
    return AliasTaken(DELETED if url is None else "the code leads elsewhere here")
