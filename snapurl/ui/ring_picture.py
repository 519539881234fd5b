"""The picture of the ring: what an SVG needs to draw 256 arcs whose colours are the shards that hold them. Pure.

Theory. A shard has a thousand virtual nodes, so every arc of 64 slots belongs to all shards. Each arc is therefore
divided from the inside outwards, by how many of its slots each shard holds, in the order of the shards. Radii are
such that equal areas are equal numbers of slots: how much there is of a colour is the share of its shard. The band
of a shard is one path, drawn over those further out, so it only needs its outer edge: two points per arc.

Around the ring is a circle with one mark per arc: for slots on their way, and for slots that have yet to go.
`stroke-dasharray` draws the marks: a circle whose length is the number of arcs, and one dash or gap for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi, sin, sqrt

from ring.arcs import Arc

ARCS_DRAWN = 256
COLOURS = 12  # of the style sheet; further shards begin again with the first
INNER, OUTER = 540, 900  # radii of the ring, in units of the view box (-1000 to 1000)
DASH, REST = ".7", ".3"  # of the length of an arc


@dataclass(frozen=True, slots=True)
class Band:
    """The slots of one shard. `colour` is the number of its colour, `path` the SVG path of its outer edge."""

    name: str
    colour: int
    is_dark: bool
    path: str


@dataclass(frozen=True, slots=True)
class RingPicture:
    """Bands in the order in which they are drawn, outermost first. Of the marks, "" is none.

    `moving` marks arcs with slots in hand-off, `waiting` those with slots that have yet to go.
    """

    bands: tuple[Band, ...]
    moving: str
    waiting: str


@lru_cache(maxsize=1)  # most of the time nothing has changed
def picture(arcs: tuple[Arc, ...], shards: tuple[str, ...], dark: frozenset[str]) -> RingPicture:
    """Returns the picture of `arcs`. Slots of unknown owner are left empty at the outside."""
    held = [dict(arc.owners) for arc in arcs]
    sizes = [sum(owners.values()) + arc.unknown for owners, arc in zip(held, arcs, strict=True)]
    below = [0] * len(arcs)
    bands = []
    for number, name in enumerate(shards):
        below = [count + owners.get(name, 0) for count, owners in zip(below, held, strict=True)]
        radii = [_radius(count / size) for count, size in zip(below, sizes, strict=True)]
        bands.append(Band(name, number % COLOURS, name in dark, _edge(radii)))
    return RingPicture(
        bands=tuple(reversed(bands)),
        moving=_marks(arcs, lambda arc: arc.in_hand_off > 0),
        waiting=_marks(arcs, lambda arc: arc.misplaced > 0 and not arc.in_hand_off),
    )


def _radius(part: float) -> float:
    return sqrt(INNER**2 + part * (OUTER**2 - INNER**2))


def _edge(radii: Sequence[float]) -> str:
    """Returns a closed path around the centre, from the top clockwise, with one step per radius.

    It is written in whole units relative to the point before, which takes the fewest bytes.
    """
    corners = pairwise(_directions(len(radii)))
    points = [
        (round(radius * x), round(radius * y))
        for radius, ends in zip(radii, corners, strict=True)
        for x, y in ends
    ]
    steps = (f"{x - x0} {y - y0}" for (x0, y0), (x, y) in pairwise(points))
    return f"M{points[0][0]} {points[0][1]}l{' '.join(steps)}z"


@lru_cache(maxsize=1)
def _directions(count: int) -> tuple[tuple[float, float], ...]:
    """Returns the ends of `count` arcs on the circle of radius 1: one more than there are arcs."""
    angles = [2 * pi * number / count for number in range(count + 1)]
    return tuple((sin(angle), -cos(angle)) for angle in angles)


def _marks(arcs: Sequence[Arc], has_mark: Callable[[Arc], bool]) -> str:
    """Returns the `stroke-dasharray` that marks some arcs."""
    if not any(map(has_mark, arcs)):
        return ""
    # Dashes and gaps alternate, so two of one kind have one of length 0 between them.
    return " ".join(f"{DASH} {REST}" if has_mark(arc) else "0 1" for arc in arcs)
