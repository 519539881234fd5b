"""Renames: a link gets another code. No SQL, no HTTP.

Theory. The old and the new code can be in slots of different shards, so no transaction holds both. The protocol is

1. read the old link, at version v;
2. create the new link with all that the old one has;
3. mark the old link as renamed, on condition that it still has version v: that is the rename. In the same write it
   keeps redirecting, or becomes a tombstone.

Nobody who follows the old code is lost at any moment, because the new link is there before the old one ends.
Whatever fails in between, repeating the request finishes the rename, whoever repeats it, with an Idempotency-Key
or without:

- before 2 or while it is under way: nothing has happened, or the new link is there. The token of the create
  follows from the two codes, which are never given to other links, so a repeat finds the new link as its own.
- after 2: there are two links with the same target, the old one as it was. A repeat begins at 1. If the old link
  has changed meanwhile, step 3 of the attempt before could not have been made and will not be: its version is
  gone. The repeat brings the new link up to date, as a change in its history, and marks the old one at its version
  of now.
- while 3 is under way: the old link is marked or not. If it is, a repeat finds that and only answers.

Who deletes the old link after 2 has won: the rename is refused, and the new link stays as a copy. So has who
transfers it: the copy stays with the account of before, unless an admin repeats the rename, which gives it to the
new account too. A link that somebody else made at the new code has another token, and one that has been deleted is
a tombstone: both are "taken". `max_clicks` is the one option that cannot be copied, since its uses are counted at
the shard of the old code while the new one would give its own: such a link is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from hashlib import sha256

from snapurl.cache.reader import LinkCache
from snapurl.codes import key_of, split_key
from snapurl.errors import (
    AliasTaken,
    FieldError,
    Gone,
    Invalid,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    VersionMismatch,
)
from snapurl.model import LINK_FIELDS, Link, LinkPatch, NewLink, Taken, link_values
from snapurl.store.links import LinkStore
from snapurl.store.tokens import random_token
from snapurl.targets.policy import TargetPolicy

ATTEMPTS = 5  # at a link that others change meanwhile


class LinkRenames:
    """Renames links. `owner` is the caller's account, None for an admin; `by` the id of the caller's key."""

    def __init__(
        self,
        store: LinkStore,
        cache: LinkCache,
        make_token: Callable[[], uuid.UUID] = random_token,
        targets: TargetPolicy | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._make_token = make_token
        self._targets = targets or TargetPolicy()

    async def rename(
        self, code: str, new: str, *, gives_up: bool, if_match: int | None, owner: str | None, by: str
    ) -> Link:
        """Returns the link at its new code, also if this rename was done before.

        `code` is the key of the link, `new` a code of the same domain.

        Raises NotFound, also for a link of another owner, Gone, AliasTaken, Invalid, BlockedTarget,
        VersionMismatch, Unavailable, OutcomeUnknown.
        """
        domain, now = split_key(code)
        if now == new:
            raise Invalid(fields=(FieldError("/code", "is the code that the link has"),))
        for _ in range(ATTEMPTS):
            old = await self._store.get(code)
            if old is None or owner not in (None, old.owner):
                raise NotFound()
            if old.renamed_to is None:
                _check(old, if_match)
            try:
                if old.renamed_to is None:
                    old = await self._attempt(old, new, gives_up, owner, by)
                await self._finish(old, new, gives_up, by)
            except VersionMismatch:
                continue
            return await self._renamed(key_of(domain, new), owner)
        raise Unavailable("others change the link all the time", is_public=True, retry_after_s=1.0)

    async def _attempt(self, old: Link, new: str, gives_up: bool, owner: str | None, by: str) -> Link:
        """Returns the old link, which is marked now. Raises VersionMismatch if one of both changed meanwhile."""
        await self._targets.check(old)
        key = key_of(split_key(old.code)[0], new)
        made = await self._store.create(NewLink(key, old, old.owner, _token(old.code, key), by))
        if isinstance(made, Taken):
            raise _taken(key)
        try:
            await self._bring_up_to_date(old, key, owner, by)
            marked = await self._store.rename(
                old.code,
                new,
                gives_up=gives_up,
                if_match=old.version,
                owner=owner,
                token=self._make_token(),
                by=by,
            )
        except Unavailable as refusal:  # but the new link is there
            raise OutcomeUnknown(retry_after_s=1.0) from refusal
        await self._cache.changed(marked)
        return marked

    async def _bring_up_to_date(self, old: Link, key: str, owner: str | None, by: str) -> None:
        """Gives the new link what the old one has, if an attempt before has made it."""
        found = await self._store.get(key)
        if found is None or found.deleted_at is not None:
            raise _taken(key)
        if found.owner != old.owner:
            if owner is not None:
                raise _taken(key)
            found = await self._store.transfer(
                key, old.owner, if_match=found.version, by=by, token=self._make_token()
            )
        if link_values(found) != link_values(old):
            patch = LinkPatch(**{name: getattr(old, name) for name in LINK_FIELDS})
            found = await self._store.change(
                key, patch, if_match=found.version, owner=old.owner, token=self._make_token(), by=by
            )
        await self._cache.changed(found)

    async def _finish(self, old: Link, new: str, gives_up: bool, by: str) -> None:
        """Checks that the rename that was done is the one asked for. Gives the old code up if it was kept."""
        if old.renamed_to != new:
            raise Invalid(
                fields=(FieldError("/code", f"the link was renamed to {old.renamed_to}: rename that"),)
            )
        if old.deleted_at is None and gives_up:
            deleted = await self._store.delete(
                old.code, if_match=old.version, owner=old.owner, token=self._make_token(), by=by
            )
            await self._cache.changed(deleted)
        if old.deleted_at is not None and not gives_up:
            raise Gone("the code was given up when the link was renamed: restore it first")

    async def _renamed(self, key: str, owner: str | None) -> Link:
        link = await self._store.get(key)
        if link is not None and owner not in (None, link.owner):  # only the old one is the caller's
            raise _taken(key)
        if link is None or link.deleted_at is not None:
            raise Gone(f"the link was renamed to {split_key(key)[1]}, and deleted since")
        return link


def _taken(key: str) -> AliasTaken:
    return AliasTaken(f"the code {split_key(key)[1]} is taken: choose another")


def _check(old: Link, if_match: int | None) -> None:
    if old.deleted_at is not None:
        raise Gone("the link was deleted: restore it first")
    if if_match not in (None, old.version):
        raise VersionMismatch()
    if old.max_clicks is not None:
        raise Invalid(
            fields=(FieldError("/code", "a link with max_clicks keeps its code: its uses are counted there"),)
        )


def _token(old: str, new: str) -> uuid.UUID:
    """Returns the token of the create of the link `new` for `old`, which no other create has."""
    return uuid.UUID(bytes=sha256(f"rename {old} {new}".encode()).digest()[:16])
