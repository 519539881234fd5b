"""Pages by number, for clients of other programs: lists of this service go on from a place instead.

A page is reached by reading the links before it. So that a client which reads one page after another does not read
all of them each time, a worker remembers where the pages that it has sent ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from snapurl.errors import FieldError, Invalid, Unavailable
from snapurl.http.api.lists import described
from snapurl.links import LinkService
from snapurl.model import Link, LinkQuery, PageKey

PLACES_MAX = 1_000  # per worker; the oldest is forgotten
PLACE_S_MAX = 600.0
FRESH_LINKS = (
    1_000  # up to here a page is always reached from the start, so that it shows what has just changed
)
SKIPPED_MAX = 5_000  # links that are read to reach a page
STEP_LINKS = 500  # read at once
TOO_FAR = "is too far from those that were asked for: ask for one after another"
READS_MAX = 60  # per page; a search for text may find nothing in one


@dataclass(frozen=True, slots=True)
class NumberedPage:
    """The links of a page. `total` is how many the list has, if its end was seen."""

    links: list[Link]
    total: int | None


class PageEnds:
    """Where pages end, as a worker remembers it. `clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._ends: OrderedDict[tuple[str, int], tuple[PageKey, float]] = OrderedDict()

    async def page(
        self,
        links: LinkService,
        query: LinkQuery,
        first: int,
        count: int,
        keep: Callable[[Link], bool] | None = None,
    ) -> NumberedPage:
        """Returns `count` links of a list behind the first `first` ones; `keep` says which links the list has.

        Raises Invalid if they are too far from all known places, Unavailable if a search finds too little in its
        time, or if links of a shard are missing.
        """
        name = described(query) + str(keep is not None)
        at, after = self._nearest(name, first)
        if first - at > SKIPPED_MAX:
            raise Invalid(fields=(FieldError("/page", TOO_FAR),))
        found: list[Link] = []
        for _ in range(READS_MAX):
            wanted = first + count - at if at >= first else first - at
            page = await links.page(query, min(wanted, STEP_LINKS), after, strict=True)
            kept = [link for link in page.links if keep is None or keep(link)]
            if at >= first:
                found += kept
            at, after = at + len(kept), page.after
            if after is None:
                return NumberedPage(found, at)
            if at >= first + count:
                self._remember(name, at, after)
                return NumberedPage(found, None)
        raise Unavailable("the search takes too long: narrow it", is_public=True, retry_after_s=1.0)

    def _nearest(self, name: str, first: int) -> tuple[int, PageKey | None]:
        """Returns the nearest known place at or before `first`: how many links are before it, and where it is."""
        if first <= FRESH_LINKS:
            return 0, None
        oldest_s = self._clock_s() - PLACE_S_MAX
        near = max(
            (
                at
                for (of, at), (_, since_s) in self._ends.items()
                if of == name and at <= first and since_s > oldest_s
            ),
            default=0,
        )
        return (near, self._ends[name, near][0]) if near else (0, None)

    def _remember(self, name: str, at: int, after: PageKey) -> None:
        self._ends[name, at] = after, self._clock_s()
        self._ends.move_to_end((name, at))
        while len(self._ends) > PLACES_MAX:
            self._ends.popitem(last=False)
