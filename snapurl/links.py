"""LinkService: what can be done with links. No SQL, no HTTP.

What the caches are told after a commit:
- every change and delete, so that no worker redirects to what was before it;
- a create with an alias, since some worker may remember that there was no such link;
- not a create with a made-up code, which nobody can have asked for before it was answered;
- of a create with an Idempotency-Key, what the owner holds at that moment: it may be a repeat, and the answer
  of a repeat is older than the link is by now.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from snapurl.cache.reader import LinkCache
from snapurl.codes import derived_code, random_code
from snapurl.errors import (
    AliasTaken,
    FieldError,
    Forbidden,
    Gone,
    IdempotencyMismatch,
    Invalid,
    NotFound,
    OutcomeUnknown,
    SnapURLError,
    Unavailable,
)
from snapurl.model import Change, DayClicks, Failed, Intent, Link, NewLink, PageKey, SourceClicks, Taken
from snapurl.store.clicks import ClickStore
from snapurl.store.links import LinkStore
from snapurl.store.tokens import random_token, random_tokens

CODE_ATTEMPTS = 5  # of a made-up code; even at a thousandth of the space in use, five collide once in 10^15
TOLD_AT_ONCE = 8  # links of a bulk call, to the cache: fewer than it has connections to Redis
NOT_IN_FUTURE = "must be in the future"


@dataclass(slots=True)
class Draft:
    """A link that somebody asks for; `alias` None leaves the code to us."""

    url: str
    alias: str | None
    title: str | None
    tags: tuple[str, ...]
    redirect_status: int
    expires_at: datetime | None

    def fingerprint(self) -> bytes:
        """SHA-256 of the request in canonical form: equal for requests that ask for the same."""
        expires = self.expires_at.isoformat() if self.expires_at else None
        fields = [self.url, self.alias, self.title, self.tags, self.redirect_status, expires]
        return sha256(json.dumps(fields).encode()).digest()


@dataclass(frozen=True, slots=True)
class Claim:
    """An Idempotency-Key: `scope` is whose it is, so that two clients may use the same key."""

    scope: str
    key: str


@dataclass(slots=True)
class _Attempt:
    """One create under way. `nonce` is the row's token; with it, and only if `repeatable`, the code is fixed."""

    draft: Draft
    nonce: uuid.UUID
    repeatable: bool

    def code(self, attempt: int, make_code: Callable[[], str]) -> str:
        if self.draft.alias is not None:
            return self.draft.alias
        return derived_code(self.nonce, attempt) if self.repeatable else make_code()

    def new_link(self, code: str, owner: str) -> NewLink:
        draft = self.draft
        return NewLink(
            code=code,
            url=draft.url,
            title=draft.title,
            tags=draft.tags,
            redirect_status=draft.redirect_status,
            expires_at=draft.expires_at,
            owner=owner,
            token=self.nonce,
        )


class LinkService:
    """Creates, reads, changes and lists links. `owner` is a key_id, "" for nobody, None for an admin."""

    def __init__(
        self,
        store: LinkStore,
        clicks: ClickStore,
        cache: LinkCache,
        clock: Callable[[], datetime],
        make_token: Callable[[], uuid.UUID] = random_token,
    ) -> None:
        self._store = store
        self._clicks = clicks
        self._cache = cache
        self._clock = clock
        self._make_token = make_token

    # -- create ----------------------------------------------------------------------------------------------

    async def create(self, draft: Draft, owner: str, claim: Claim | None) -> Link:
        """The link as created; for a repeat of an earlier claim, what that one was answered.

        Raises AliasTaken, IdempotencyMismatch, Invalid (expiry in the past), Unavailable, OutcomeUnknown.
        """
        if claim is None:
            attempt = _Attempt(draft, self._make_token(), repeatable=False)
        else:
            intent = await self._store.claim(claim.scope, claim.key, draft.fingerprint())
            attempt = await self._from_intent(draft, intent)
        for number in range(CODE_ATTEMPTS):
            made = await self._store.create(
                attempt.new_link(attempt.code(number, self._store.new_code), owner)
            )
            if isinstance(made, Link):
                if draft.alias is not None:
                    await self._tell(made, attempt.repeatable)
                return made
            if draft.alias is not None:
                raise _taken(draft.alias)
        raise Unavailable("no free code was found", retry_after_s=1.0)

    async def _from_intent(self, draft: Draft, intent: Intent) -> _Attempt:
        if intent.fingerprint != draft.fingerprint():
            raise IdempotencyMismatch()
        attempt = _Attempt(draft, intent.nonce, repeatable=True)
        if draft.expires_at is not None and draft.expires_at <= self._clock():
            await self._refuse_unless_made(attempt)
        return attempt

    async def _refuse_unless_made(self, attempt: _Attempt) -> None:
        """An expiry in the past is refused, unless this repeats a create that was in time.

        If the row is there, the create finds by its token whether it is its own; rows never go away, so
        nothing can be made that is expired from the start.
        """
        if await self._store.get(attempt.code(0, random_code)) is None:
            raise Invalid(fields=(FieldError("/expires_at", NOT_IN_FUTURE),))

    async def _tell_created(self, made: Sequence[tuple[_Attempt, Link]]) -> None:
        aliased = [(attempt, link) for attempt, link in made if attempt.draft.alias is not None]
        for first in range(0, len(aliased), TOLD_AT_ONCE):
            some = aliased[first : first + TOLD_AT_ONCE]
            await asyncio.gather(*(self._tell(link, attempt.repeatable) for attempt, link in some))

    async def _tell(self, link: Link, repeatable: bool) -> None:
        if not repeatable:
            await self._cache.changed(link)
            return
        with suppress(Unavailable):
            current = await self._store.get(link.code)
            if current is not None:
                await self._cache.changed(current)

    async def create_many(
        self, drafts: Sequence[Draft], owner: str, claims: Sequence[Claim] | None
    ) -> list[Link | SnapURLError]:
        """One answer per draft, in their order; `claims` are parallel to them."""
        answers: list[Link | SnapURLError] = [Unavailable("no free code was found", retry_after_s=1.0)] * len(
            drafts
        )
        attempts = await self._begin_many(drafts, claims, answers)
        for number in range(CODE_ATTEMPTS):
            if not attempts:
                break
            attempts = await self._create_round(number, attempts, owner, answers)
        return answers

    async def _begin_many(
        self, drafts: Sequence[Draft], claims: Sequence[Claim] | None, answers: list[Link | SnapURLError]
    ) -> dict[int, _Attempt]:
        """The creates to be tried, by place; those that are refused already are answered."""
        if claims is None:
            tokens = random_tokens(len(drafts))
            return {
                place: _Attempt(draft, token, repeatable=False)
                for place, (draft, token) in enumerate(zip(drafts, tokens, strict=True))
            }
        intents = await self._store.claim_many(
            [
                (claim.scope, claim.key, draft.fingerprint())
                for claim, draft in zip(claims, drafts, strict=True)
            ]
        )
        attempts: dict[int, _Attempt] = {}
        for place, (draft, intent) in enumerate(zip(drafts, intents, strict=True)):
            try:
                attempts[place] = await self._from_intent(draft, _or_raise(intent))
            except SnapURLError as refusal:
                answers[place] = refusal
        return attempts

    async def _create_round(
        self, number: int, attempts: dict[int, _Attempt], owner: str, answers: list[Link | SnapURLError]
    ) -> dict[int, _Attempt]:
        """Tries all attempts in one call per shard; returns those whose made-up code was taken."""
        make_code = iter(self._store.new_codes(len(attempts))).__next__
        new = [attempt.new_link(attempt.code(number, make_code), owner) for attempt in attempts.values()]
        made = await self._store.create_many(new)
        again: dict[int, _Attempt] = {}
        links: list[tuple[_Attempt, Link]] = []
        for (place, attempt), result in zip(attempts.items(), made, strict=True):
            match result:
                case Link():
                    answers[place] = result
                    links.append((attempt, result))
                case Taken(code) if attempt.draft.alias is not None:
                    answers[place] = _taken(code)
                case Taken():
                    again[place] = attempt
                case Failed():
                    answers[place] = _failure(result)
        await self._tell_created(links)
        return again

    # -- read and change -------------------------------------------------------------------------------------

    async def get(self, code: str, owner: str | None) -> Link:
        """The link as it is now, also when expired. Raises NotFound, Forbidden, Gone, Unavailable."""
        link = await self._store.get(code)
        if link is None:
            raise NotFound()
        if owner is not None and link.owner != owner:
            raise Forbidden("this API key reaches only its own links")
        if link.deleted_at is not None:
            raise Gone("the link was deleted")
        return link

    async def change(self, code: str, change: Change, if_match: int | None, owner: str | None) -> Link:
        """The changed link. Raises NotFound, Forbidden, Gone, VersionMismatch, OutcomeUnknown, Unavailable."""
        token = self._make_token()
        return await self._written(
            self._store.change(code, change, if_match=if_match, owner=owner, token=token)
        )

    async def delete(self, code: str, if_match: int | None, owner: str | None) -> Link:
        """The tombstone. Raises as `change` does."""
        token = self._make_token()
        return await self._written(self._store.delete(code, if_match=if_match, owner=owner, token=token))

    async def _written(self, write: Awaitable[Link]) -> Link:
        link = await write
        await self._cache.changed(link)
        return link

    async def page(
        self, limit: int, before: PageKey | None, owner: str | None
    ) -> tuple[list[Link], PageKey | None]:
        """Up to `limit` links, newest first, and where the next page begins (None: this was the last)."""
        links = await self._store.page(limit + 1, before, owner)
        if len(links) <= limit:
            return links, None
        last = links[limit - 1]
        return links[:limit], PageKey(last.created_at, last.code)

    async def stats(self, code: str, owner: str | None) -> tuple[list[DayClicks], list[SourceClicks]]:
        """Clicks by UTC day, oldest first, and by where they came from, most first within a kind. Raises as `get`
        does."""
        await self.get(code, owner)
        return await asyncio.gather(self._clicks.totals(code), self._clicks.sources(code))


def _taken(alias: str) -> AliasTaken:
    return AliasTaken(f"the alias {alias} is taken: choose another, or leave it out")


def _or_raise(intent: Intent | Failed) -> Intent:
    if isinstance(intent, Failed):
        raise Unavailable(intent.detail, retry_after_s=1.0)
    return intent


def _failure(failed: Failed) -> SnapURLError:
    if failed.outcome_known:
        return Unavailable(failed.detail, retry_after_s=1.0)
    return OutcomeUnknown(retry_after_s=1.0)
