"""The clicks of one hour as a worker holds them: classes and numbers, nothing that a request has said. Pure.

Clicks count whatever becomes of their classes. Values of a kind are bounded per code as a shard bounds them per
link and day (`model.VALUES_MAX`); over all codes, a number bounds the values and another the visitors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from snapurl.clicks.sources import OTHER
from snapurl.model import VALUES_MAX, SourceKind


@dataclass(frozen=True, slots=True)
class Classes:
    """What is kept of a click beside its code. `visitor` is a digest of who clicked, empty if that is not kept."""

    values: Sequence[tuple[SourceKind, str]] = ()
    is_bot: bool = False
    visitor: bytes = b""


NOTHING = Classes()


@dataclass(slots=True)
class LeftOut:
    """How many clicks, values and visitors found no room; clicks whose value counts under OTHER, by kind."""

    clicks: int = 0
    values: int = 0
    visitors: int = 0
    capped: dict[SourceKind, int] = field(default_factory=dict)

    def take(self) -> LeftOut:
        """Returns and resets the numbers."""
        taken = replace(self)
        self.clicks = self.values = self.visitors = 0
        self.capped = {}
        return taken


@dataclass(slots=True)
class Counts:
    """code -> clicks, those of bots, sources, visitors. The rooms are how many codes, values and visitors fit."""

    codes_room: int
    values_room: int
    visitors_room: int
    left_out: LeftOut
    clicks: dict[str, int] = field(default_factory=dict)
    bots: dict[str, int] = field(default_factory=dict)
    sources: dict[str, dict[SourceKind, dict[str, int]]] = field(default_factory=dict)
    visitors: dict[str, set[bytes]] = field(default_factory=dict)
    values_held: int = 0
    visitors_held: int = 0

    def add(self, code: str, count: int, classes: Classes) -> None:
        """Counts `count` clicks of the same classes."""
        if code in self.clicks:
            self.clicks[code] += count
        elif len(self.clicks) < self.codes_room:
            self.clicks[code] = count
        else:
            self.left_out.clicks += count
            return
        if classes.is_bot:
            self.bots[code] = self.bots.get(code, 0) + count
        if classes.values:
            self._add_values(code, count, classes.values)
        if classes.visitor:
            self._add_visitor(code, classes.visitor)

    def _add_values(self, code: str, count: int, values: Sequence[tuple[SourceKind, str]]) -> None:
        found = self.sources.get(code)
        if found is None:
            if self.values_held + len(values) <= self.values_room:
                self.sources[code] = {kind: {value: count} for kind, value in values}
                self.values_held += len(values)
                return
            found = self.sources[code] = {}
        for kind, value in values:
            known = found.get(kind)
            if known is None:
                known = found[kind] = {}
            if value in known:
                known[value] += count
            else:
                self._add_value(known, kind, value, count)

    def _add_value(self, known: dict[str, int], kind: SourceKind, value: str, count: int) -> None:
        if len(known) >= VALUES_MAX[kind] and value != OTHER:
            self.left_out.capped[kind] = self.left_out.capped.get(kind, 0) + count
            value = OTHER
        if value in known:
            known[value] += count
        elif self.values_held < self.values_room:
            known[value] = count
            self.values_held += 1
        else:
            self.left_out.values += 1

    def _add_visitor(self, code: str, visitor: bytes) -> None:
        found = self.visitors.get(code)
        if found is None:
            if self.visitors_held >= self.visitors_room:
                self.left_out.visitors += 1
                return
            found = self.visitors[code] = set()
        if visitor in found:
            return
        if self.visitors_held < self.visitors_room:
            found.add(visitor)
            self.visitors_held += 1
        else:
            self.left_out.visitors += 1

    def pop(self, codes: Iterable[str]) -> Counts:
        """Takes these codes out and returns them."""
        part = Counts(0, 0, 0, self.left_out)
        for code in codes:
            part.clicks[code] = self.clicks.pop(code)
            if code in self.bots:
                part.bots[code] = self.bots.pop(code)
            if code in self.sources:
                part.sources[code] = self.sources.pop(code)
                part.values_held += sum(map(len, part.sources[code].values()))
            if code in self.visitors:
                part.visitors[code] = self.visitors.pop(code)
                part.visitors_held += len(part.visitors[code])
        self.values_held -= part.values_held
        self.visitors_held -= part.visitors_held
        return part
