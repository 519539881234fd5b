"""LinkService: creates, reads, changes and lists links, each by its key (`codes.py`). No SQL, no HTTP.

What invalidates the caches after a commit:
- every change and delete, so that no worker redirects to the old target;
- a create with an alias, because a worker may have cached that there was no such link;
- not a create with a generated code, which nobody can have requested before the client received it;
- for a create with an Idempotency-Key, the row as its owner has it now: the create may be a repeat, and its answer
  shows the link as it was at first.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from snapurl.cache.reader import LinkCache
from snapurl.codes import derived_code, key_of
from snapurl.errors import (
    AliasTaken,
    FieldError,
    Gone,
    IdempotencyMismatch,
    Invalid,
    NotFound,
    NoTitle,
    OutcomeUnknown,
    SnapURLError,
    Unavailable,
)
from snapurl.history import LinkHistory
from snapurl.model import (
    EXPIRY_NOT_IN_FUTURE,
    Account,
    CachedLink,
    Draft,
    Failed,
    IdempotencyKey,
    IdempotencyRecord,
    Link,
    LinkCount,
    LinkFields,
    LinkPatch,
    LinkQuery,
    ListedLinks,
    NewLink,
    PageKey,
    TagCounts,
    Taken,
)
from snapurl.passwords import Passwords
from snapurl.store.batching.uses import Use
from snapurl.store.links import LinkStore
from snapurl.store.tokens import random_token, random_tokens
from snapurl.targets.policy import TargetPolicy
from snapurl.titles import TitleFetcher

CODE_ATTEMPTS = (
    5  # generated codes per link; with a thousandth of all codes in use, five collide once in 10^15
)
PASSWORDS_MAX = 20  # links of one bulk create that may have one: each takes its time to hash
TARGET_FIELDS = ("url", "expired_url", "rules")
INVALIDATIONS_MAX = 8  # concurrent ones of a bulk create: fewer than the cache has connections to Redis

log = logging.getLogger("snapurl.links")


class _PendingCreate(Struct):
    """A create under way. An idempotent one derives its code from `token`, so a repeat asks for the same code.

    Its `code` is a key, and so is what `generate_code` returns for a domain.
    """

    draft: Draft
    token: uuid.UUID
    idempotent: bool

    def code(self, attempt: int, generate_code: Callable[[str], str]) -> str:
        domain = self.draft.domain or ""
        if self.draft.alias is not None:
            return key_of(domain, self.draft.alias)
        return key_of(domain, derived_code(self.token, attempt)) if self.idempotent else generate_code(domain)

    def new_link(self, code: str, owner: str, by: str) -> NewLink:
        return NewLink(code, self.draft, self.draft.account or owner, self.token, by)


class LinkService:
    """Creates, reads, changes and lists links.

    `owner` is the id of an account, "" for nobody, None for an admin. `by` is the key_id of the API key that
    writes.
    """

    def __init__(
        self,
        store: LinkStore,
        cache: LinkCache,
        passwords: Passwords,
        titles: TitleFetcher | None,
        clock: Callable[[], datetime],
        make_token: Callable[[], uuid.UUID] = random_token,
        targets: TargetPolicy | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._targets = targets or TargetPolicy()
        self._passwords = passwords
        self._titles = titles
        self._clock = clock
        self._make_token = make_token

    # -- create ----------------------------------------------------------------------------------------------

    async def create(self, draft: Draft, owner: str, key: IdempotencyKey | None, by: str = "") -> Link:
        """Returns the link as created; when `key` was used before, the link as that create returned it.

        Raises AliasTaken, IdempotencyMismatch, Invalid (expiry in the past), BlockedTarget, Unavailable,
        OutcomeUnknown.
        """
        await self._targets.check(draft)
        await self._hash_password(draft)
        if key is None:
            pending = _PendingCreate(draft, self._make_token(), idempotent=False)
        else:
            pending = await self._idempotent(draft, await self._store.reserve(key, draft.fingerprint()))
        may_live_elsewhere = draft.alias is None and key is None
        for attempt in range(CODE_ATTEMPTS):
            try:
                made = await self._store.create(
                    pending.new_link(pending.code(attempt, self._store.new_code), owner, by)
                )
            except (Unavailable, OutcomeUnknown):
                # A shard has just gone silent, which is known now: the next code is of another. If the link was
                # made nevertheless, there are two, as if the client had repeated what was refused.
                if not may_live_elsewhere:
                    raise
                may_live_elsewhere = False
                continue
            if isinstance(made, Link):
                if draft.alias is not None:
                    await self._invalidate(made, pending.idempotent)
                return made
            if draft.alias is not None:
                raise _taken(draft.alias)
        raise no_free_code()

    async def _hash_password(self, draft: Draft) -> None:
        if draft.password is not None:
            draft.password_hash = await self._passwords.hash(draft.password)

    async def _idempotent(self, draft: Draft, record: IdempotencyRecord) -> _PendingCreate:
        if record.fingerprint != draft.fingerprint():
            raise IdempotencyMismatch()
        pending = _PendingCreate(draft, record.token, idempotent=True)
        if draft.expires_at is not None and draft.expires_at <= self._clock():
            await self._check_was_created(pending)
        return pending

    async def _check_was_created(self, pending: _PendingCreate) -> None:
        """Refuses an expiry in the past, unless this repeats a create that was in time.

        If there is a row, the create finds by its token whether the row is its own. Rows are never deleted, so no
        link is created that has already expired.
        """
        if await self._store.get(pending.code(0, self._store.new_code)) is None:
            raise Invalid(fields=(FieldError("/expires_at", EXPIRY_NOT_IN_FUTURE),))

    async def _invalidate_created(self, made: Sequence[tuple[_PendingCreate, Link]]) -> None:
        aliased = [(pending, link) for pending, link in made if pending.draft.alias is not None]
        for first in range(0, len(aliased), INVALIDATIONS_MAX):
            some = aliased[first : first + INVALIDATIONS_MAX]
            await asyncio.gather(*(self._invalidate(link, pending.idempotent) for pending, link in some))

    async def _invalidate(self, link: Link, idempotent: bool) -> None:
        if not idempotent:
            await self._cache.changed(link)
            return
        with suppress(Unavailable):
            current = await self._store.get(link.code)
            if current is not None:
                await self._cache.changed(current)

    async def create_many(
        self, drafts: Sequence[Draft], owner: str, keys: Sequence[IdempotencyKey] | None, by: str = ""
    ) -> list[Link | SnapURLError]:
        """Returns one result per draft, in their order. `keys` has one item per draft."""
        results: list[Link | SnapURLError] = [no_free_code()] * len(drafts)
        pending = await self._begin_many(drafts, keys, results)
        for place, refusal in (await self._targets.refusals(drafts)).items():
            results[place] = refusal
            pending.pop(place, None)
        for count, (place, create) in enumerate(
            [item for item in pending.items() if item[1].draft.password is not None]
        ):
            if count < PASSWORDS_MAX:
                await self._hash_password(create.draft)
            else:
                results[place] = _too_many_passwords()
                del pending[place]
        for attempt in range(CODE_ATTEMPTS):
            if not pending:
                break
            pending = await self._attempt_many(attempt, pending, owner, by, results)
        return results

    async def _begin_many(
        self,
        drafts: Sequence[Draft],
        keys: Sequence[IdempotencyKey] | None,
        results: list[Link | SnapURLError],
    ) -> dict[int, _PendingCreate]:
        """Returns the creates to attempt, by place. Sets the result of those that are refused already."""
        if keys is None:
            tokens = random_tokens(len(drafts))
            return {
                place: _PendingCreate(draft, token, idempotent=False)
                for place, (draft, token) in enumerate(zip(drafts, tokens, strict=True))
            }
        records = await self._store.reserve_many(
            [(key, draft.fingerprint()) for key, draft in zip(keys, drafts, strict=True)]
        )
        pending: dict[int, _PendingCreate] = {}
        for place, (draft, record) in enumerate(zip(drafts, records, strict=True)):
            try:
                pending[place] = await self._idempotent(draft, _or_raise(record))
            except SnapURLError as refusal:
                results[place] = refusal
        return pending

    async def _attempt_many(
        self,
        attempt: int,
        pending: dict[int, _PendingCreate],
        owner: str,
        by: str,
        results: list[Link | SnapURLError],
    ) -> dict[int, _PendingCreate]:
        """Attempts all creates, in one call per shard. Returns those whose generated code was taken."""
        counts = Counter(create.draft.domain or "" for create in pending.values())
        codes = {domain: iter(self._store.new_codes(count, domain)) for domain, count in counts.items()}

        def generate_code(domain: str) -> str:
            return next(codes[domain])

        new = [create.new_link(create.code(attempt, generate_code), owner, by) for create in pending.values()]
        made = await self._store.create_many(new)
        again: dict[int, _PendingCreate] = {}
        links: list[tuple[_PendingCreate, Link]] = []
        for (place, create), result in zip(pending.items(), made, strict=True):
            match result:
                case Link():
                    results[place] = result
                    links.append((create, result))
                case Taken() if create.draft.alias is not None:
                    results[place] = _taken(create.draft.alias)
                case Taken():
                    again[place] = create
                case Failed():
                    results[place] = failure_of(result)
        await self._invalidate_created(links)
        return again

    # -- read and change -------------------------------------------------------------------------------------

    async def get(self, code: str, owner: str | None) -> Link:
        """Returns the link as it is now, also when expired. Raises NotFound, Gone, Unavailable."""
        link = await self.own(code, owner)
        if link.deleted_at is not None:
            renamed = f"the link was renamed to {link.renamed_to}, and this code was given up"
            raise Gone(renamed if link.renamed_to else "the link was deleted")
        return link

    async def history(self, code: str, owner: str | None) -> LinkHistory:
        """Returns the link and who changed what of it, also if it is deleted. Raises NotFound, Unavailable."""
        found = await self._store.history(code)
        if found is None or not _may_see(found.link, owner):
            raise NotFound()
        return found

    async def own(self, code: str, owner: str | None) -> Link:
        """Returns the link, also a deleted one, if the caller may see it. Raises NotFound, Unavailable."""
        link = await self._store.get(code)
        if link is None or not _may_see(link, owner):
            raise NotFound()
        return link

    async def change(
        self, code: str, patch: LinkPatch, if_match: int | None, owner: str | None, by: str = ""
    ) -> Link:
        """Returns the changed link.

        Raises NotFound, also for a link of another owner, Gone, VersionMismatch, BlockedTarget, OutcomeUnknown,
        Unavailable.
        """
        if not self._targets.is_open:
            await self._check_change(code, patch, owner)
        if "password" in patch.values:
            values = dict(patch.values)
            password = values.pop("password")
            hashed = None if password is None else await self._passwords.hash(password)
            patch = LinkPatch(**values, password_hash=hashed)
        token = self._make_token()
        return await self._written(
            self._store.change(code, patch, if_match=if_match, owner=owner, token=token, by=by)
        )

    async def _check_change(self, code: str, patch: LinkPatch, owner: str | None) -> None:
        """Raises BlockedTarget if new targets are blocked, or those of a link that the change enables."""
        await self._targets.check(LinkFields(**{"url": "", **_only_targets(patch.values)}))
        if patch.values.get("enabled"):
            link = await self.own(code, owner)
            if not link.enabled and link.deleted_at is None:
                await self._targets.check(replace(link, **_only_targets(patch.values)))

    async def fetch_title(self, code: str, owner: str | None, by: str = "") -> Link:
        """Gives the link the title of the page that it leads to. Raises as `change` does, and NoTitle."""
        if self._titles is None:
            raise NoTitle("this service fetches no titles: SNAPURL_FETCH_TITLES is off", cause="refused")
        link = await self.get(code, owner)
        title = await self._titles.fetch(link.url)
        return await self.change(code, LinkPatch(title=title), link.version, owner, by)

    async def delete(self, code: str, if_match: int | None, owner: str | None, by: str = "") -> Link:
        """Returns the tombstone. Raises as `change` does."""
        token = self._make_token()
        return await self._written(
            self._store.delete(code, if_match=if_match, owner=owner, token=token, by=by)
        )

    async def transfer(self, code: str, account: Account, if_match: int | None, by: str) -> Link:
        """Gives the link to another account; `by` is the id of the admin's key. Raises as `change` does."""
        token, account_id = self._make_token(), account.account_id
        link = await self._written(
            self._store.transfer(code, account_id, if_match=if_match, by=by, token=token)
        )
        log.info("link %s was given to account %s by %s", code, account_id, by)
        return link

    async def restore(self, code: str, if_match: int | None, owner: str | None, by: str = "") -> Link:
        """Returns the link, which is no longer deleted. Raises as `change` does, Gone if it is too late."""
        if not self._targets.is_open:
            link = await self.own(code, owner)
            if link.deleted_at is not None:
                await self._targets.check(link)
        token = self._make_token()
        return await self._written(
            self._store.restore(code, if_match=if_match, owner=owner, token=token, by=by)
        )

    async def _written(self, write: Awaitable[Link]) -> Link:
        link = await write
        await self._cache.changed(link)
        return link

    async def find(self, code: str) -> CachedLink:
        """Returns what a redirect needs of a link, as its shard has it now. Raises Unavailable."""
        return await self._store.find(code)

    async def is_password(self, password: str, link: CachedLink) -> bool:
        """Whether `password` is that of a link that has one. Raises Unavailable."""
        assert link.options is not None and link.options.password_hash is not None
        return await self._passwords.is_right(password, link.options.password_hash)

    async def use(self, code: str, version: int, *, takes: bool) -> Use:
        """Returns whether a request may redirect to a link of that version that has `max_clicks`.

        `takes` is whether it uses one up. Raises Unavailable.
        """
        return await self._store.use(code, version, takes=takes)

    async def used(self, links: Sequence[Link]) -> dict[str, int]:
        """Returns how many clicks were used of each link that has `max_clicks`, without those of silent shards."""

        async def read(code: str) -> int | None:
            try:
                return await self._store.used(code)
            except Unavailable:
                return None

        limited = [link.code for link in links if link.max_clicks is not None]
        found = zip(limited, await asyncio.gather(*map(read, limited)), strict=True)
        return {code: used for code, used in found if used is not None}

    async def page(
        self, query: LinkQuery, limit: int, after: PageKey | None = None, *, strict: bool = False
    ) -> ListedLinks:
        """Returns up to `limit` links of a list, after `after`.

        Links are missing while their shard does not serve; if `strict`, that raises Unavailable.
        """
        page = await self._store.page(query, limit, after)
        if strict and page.silent:
            raise Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)
        return page

    async def count(self, query: LinkQuery) -> LinkCount | None:
        """Returns how many links a list has; None if a part cannot be counted now. Raises Unavailable."""
        return await self._store.count(query)

    async def tags(self, owner: str | None, prefix: str, limit: int) -> TagCounts:
        """Returns up to `limit` tags that begin with `prefix`, most links first. Raises Unavailable."""
        return await self._store.tags(LinkQuery(owner=owner), prefix, limit)


def _only_targets(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in TARGET_FIELDS if name in values}


def _may_see(link: Link, owner: str | None) -> bool:
    """Whether the link is the caller's. Others are "not found", so that no key can tell which codes are in use."""
    return owner is None or link.owner == owner


def _taken(alias: str) -> AliasTaken:
    return AliasTaken(f"the alias {alias} is taken: choose another, or leave it out")


def _too_many_passwords() -> Invalid:
    return Invalid(
        fields=(FieldError("/password", f"at most {PASSWORDS_MAX} links of one call may have one"),)
    )


def no_free_code() -> Unavailable:
    """Returns the refusal of a create that drew only codes that are taken."""
    return Unavailable("no free code was found", is_public=True, retry_after_s=1.0)


def _or_raise(record: IdempotencyRecord | Failed) -> IdempotencyRecord:
    if isinstance(record, Failed):
        raise Unavailable(record.detail, retry_after_s=1.0)
    return record


def failure_of(failed: Failed) -> SnapURLError:
    """Returns the refusal of an item that failed for now."""
    if failed.outcome_known:
        return Unavailable(failed.detail, retry_after_s=1.0)
    return OutcomeUnknown(retry_after_s=1.0)
