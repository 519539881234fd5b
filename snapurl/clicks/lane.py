"""A lane: the deliveries of clicks to one shard, one call at a time, divided until each of them succeeds.

Theory. A call to a shard is bounded in rows, sources and bytes. It may time out all the same: the shard is slow, or
something holds a row of one slot. Repeating the same call could go on for ever, so what timed out is divided:

- The slots of the call become *suspects*, in two groups of half the slots each. Other slots are delivered in calls
  of their own, every second one. Groups take turns, and one that times out again is divided again. So a slot that
  cannot be delivered is alone after about log2(slots) time-outs, and the others have been delivered meanwhile. If
  the whole shard is slow, groups stay large: each of them has to time out before the next smaller ones are tried.
- A slot that is alone is divided by entries, down to one.
- One entry of one slot that times out is delivered without its sources: its clicks count, where they came from is
  lost. So are the next ones of that slot for BARE_S.
- Without sources a slot needs one row per link and day. If even that times out, the slot waits, up to HELD_S_MAX
  between two attempts.

A call counts whole or not at all, and a slot's cursor moves with its counts. So it does not matter where in this a
consumer is killed: the next one begins with large calls again, and each slot's shard tells it what is counted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from snapurl.clicks.backlog import Backlog
from snapurl.clicks.visitors import VisitorReader
from snapurl.model import ClicksBySlot
from snapurl.store.clicks import ClickStore, Fault
from snapurl.telemetry.metrics import CLICK_DELIVERIES_DIVIDED, CLICK_SOURCES_DROPPED, CLICKS_APPLIED

log = logging.getLogger("snapurl.clicks")

RETRY_S = 0.25  # until a shard that failed, or a slot that was refused, is tried again
BARE_S = 600.0  # that the clicks of a slot are delivered without sources
HELD_S_MAX = 30.0  # between two attempts at a slot that times out even so


@dataclass(slots=True, eq=False)
class _Suspects:
    """Slots that were in a call that timed out. All but `slots` is about a slot that is alone."""

    slots: list[int]
    entries_max: int | None = None  # per call
    bare_until: float | None = None  # delivered without sources until then
    held_s: float = RETRY_S
    not_before: float = float("-inf")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """The rows that one call delivers."""

    lane: Lane
    backlog: Backlog
    rows: ClicksBySlot
    group: _Suspects | None  # None: slots that are not suspect


class Lane:
    """Deliveries to the shard `name`. `clock` is monotonic."""

    def __init__(
        self, name: str, clicks: ClickStore, visitors: VisitorReader, clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._clicks = clicks
        self._visitors = visitors
        self._clock = clock
        self._groups: deque[_Suspects] = deque()
        self._refused: set[int] = set()
        self._refused_until = 0.0
        self._down_until = 0.0
        self._suspects_next = False

    @property
    def is_stalled(self) -> bool:
        """Whether clicks wait although this lane has tried to deliver them."""
        now = self._clock()
        is_divided = any(group.bare_until is None or group.not_before > now for group in self._groups)
        return bool(self._refused) or is_divided or self._down_until > now

    def next_call(self, backlog: Backlog, slots: Sequence[int]) -> Call | None:
        """Returns what to deliver next of the rows of `slots`, which this shard is believed to own; None if
        nothing."""
        now = self._clock()
        if now < self._down_until:
            return None
        if now >= self._refused_until:
            self._refused.clear()
        ways = [self._unsuspected, self._suspected]
        if self._suspects_next:
            ways.reverse()
        self._suspects_next = not self._suspects_next
        ready = [slot for slot in slots if slot not in self._refused]
        return next((call for way in ways if (call := way(backlog, ready)) is not None), None)

    def _unsuspected(self, backlog: Backlog, slots: Iterable[int]) -> Call | None:
        suspects = {slot for group in self._groups for slot in group.slots}
        rows = backlog.take(slot for slot in slots if slot not in suspects)
        return Call(self, backlog, rows, None) if rows else None

    def _suspected(self, backlog: Backlog, slots: Iterable[int]) -> Call | None:
        here, now = set(slots), self._clock()
        for group in list(self._groups):
            self._groups.rotate(-1)
            if group.bare_until is None:
                group.slots = [slot for slot in group.slots if slot in here]
            elif now >= group.bare_until:
                group.bare_until, group.entries_max = None, 1
            if not group.slots:
                self._groups.remove(group)
            elif now >= group.not_before:
                rows = backlog.take((slot for slot in group.slots if slot in here), group.entries_max)
                if rows:
                    return Call(self, backlog, rows, group)
        return None

    async def deliver(self, call: Call) -> None:
        """Carries out a call, drops what was counted from the backlog, and divides what was not in time."""
        is_bare = call.group is not None and call.group.bare_until is not None
        rows = _without_sources(call.rows) if is_bare else call.rows
        visitors = {} if is_bare else await self._visitors.read(rows)
        delivery = await self._clicks.apply(self._name, call.backlog.name, rows, visitors)
        counted = {slot: call.rows[slot] for slot in delivery.counted}
        CLICKS_APPLIED.inc(call.backlog.drop(counted))
        if is_bare:
            CLICK_SOURCES_DROPPED.inc(sum(row.values for rows in counted.values() for row in rows))
        left = [slot for slot in call.rows if slot not in delivery.counted]
        if left and delivery.fault is Fault.UNREACHABLE:
            self._down_until = self._clock() + RETRY_S
        elif left and delivery.fault is Fault.TOO_MUCH:
            CLICK_DELIVERIES_DIVIDED.inc()
            self._divide(call, left)
        else:
            if left:
                self._refused.update(left)
                self._refused_until = self._clock() + RETRY_S
            self._clear(call)

    def _clear(self, call: Call) -> None:
        """Clears suspects that were delivered. A slot that was divided by entries is cleared step by step."""
        group = call.group
        if group is None:
            return
        group.held_s = RETRY_S
        has_more = group.slots[0] in call.backlog.waiting
        if group.bare_until is not None or (group.entries_max is not None and has_more):
            group.entries_max = 2 * (group.entries_max or 1)
        else:
            self._remove(call, group)

    def _remove(self, call: Call, group: _Suspects) -> None:
        group.slots = [slot for slot in group.slots if slot not in call.rows]
        if not group.slots:
            self._groups.remove(group)

    def _divide(self, call: Call, left: list[int]) -> None:
        group = call.group
        was_alone = group is not None and len(group.slots) == 1
        if group is not None:
            self._remove(call, group)
        if len(left) > 1:
            half = len(left) // 2
            self._groups += (_Suspects(left[:half]), _Suspects(left[half:]))
            return
        alone = group if group is not None and was_alone else _Suspects(left)
        alone.slots = left
        self._groups.append(alone)
        rows = call.rows[left[0]]
        entries = len({row.entry for row in rows})
        named = {"shard": self._name, "slot": left[0]}
        if entries > 1:
            alone.entries_max = entries // 2
        elif alone.bare_until is None and any(row.values for row in rows):
            alone.entries_max, alone.bare_until = 1, self._clock() + BARE_S
            log.warning("a shard cannot count the sources of a slot's clicks in time", extra=named)
        else:
            alone.entries_max, alone.not_before = 1, self._clock() + alone.held_s
            if alone.held_s == RETRY_S:
                log.warning("a shard cannot count the clicks of a slot in time; they wait", extra=named)
            alone.held_s = min(2 * alone.held_s, HELD_S_MAX)


def _without_sources(rows: ClicksBySlot) -> ClicksBySlot:
    return {slot: [replace(row, sources={}) for row in found] for slot, found in rows.items()}
