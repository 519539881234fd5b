"""Clicks as workers record them: what requests say, and what a tally has of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from snapurl.addresses import Clients
from snapurl.clicks.agents import read_families
from snapurl.clicks.classifier import Classifier
from snapurl.clicks.counts import Counts, LeftOut
from snapurl.clicks.origins import Origins
from snapurl.clicks.tally import Said, Tally
from snapurl.model import Sources

FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
ROOM = 1_000_000


def classifier() -> Classifier:
    """Returns a classifier without libraries, places and proxies."""
    return Classifier(read_families, Origins(Clients((), print), "").read)


def said(
    referrer: str = "",
    user_agent: bytes | None = FIREFOX,
    *,
    query: bytes | None = None,
    language: bytes | None = None,
    refuses: bool = False,
) -> Said:
    """Returns what a request says that comes from a page of the host `referrer`."""
    page = f"https://{referrer}/".encode() if referrer else None
    return query, page, user_agent, language, b"1" if refuses else None


def taken(tally: Tally) -> dict[str, int]:
    """Takes the clicks of a tally; returns how many each code has."""
    clicks: Counter[str] = Counter()
    for click, count in tally.take().items():
        clicks[click[0]] += count
    return dict(clicks)


def classified(
    tally: Tally, by: Classifier | None = None, salt: bytes = b"", renamed: tuple[str, str] = ("", "")
) -> Counts:
    """Takes the clicks of a tally; returns what a worker makes of them, with one code renamed to another."""
    by = by or classifier()
    by.renew()
    counts = Counts(ROOM, ROOM, ROOM, LeftOut())
    for (code, told, origin, target), count in tally.take().items():
        name = renamed[1] if code == renamed[0] else code
        counts.add(name, count, by.of((name, told, origin, target), salt))
    return counts


def sources(tally: Tally) -> dict[str, dict[str, dict[str, int]]]:
    """Takes the clicks of a tally; returns code -> kind -> value -> clicks."""
    return plain(classified(tally).sources)


def plain(found: Mapping[str, Sources]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        code: {str(kind): dict(values) for kind, values in kinds.items()} for code, kinds in found.items()
    }
