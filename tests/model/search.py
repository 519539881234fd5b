"""Breadth-first search of all reachable worlds, and the invariants that each must satisfy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ring.ownership import HOLDING, SlotState
from tests.model.clients import Clients
from tests.model.crashes import crashes
from tests.model.moves import Event, Migrators, Violation, concerns, found_wrong
from tests.model.mutation import NONE, Mutation
from tests.model.world import HAND_OFF, IDLE, Scope, World, begin, readable, writable


@dataclass(slots=True)
class Found:
    """All worlds in the order in which they were found, and how each is reached.

    `parents[n]` and `by[n]`: the world and the event from which world n was first reached (shortest path).
    `edges[n]`: the numbers of the worlds that follow n without a fault.
    """

    worlds: list[World]
    parents: list[int] = field(default_factory=lambda: [0])
    by: list[str] = field(default_factory=lambda: [""])
    edges: list[list[int]] = field(default_factory=list)

    def path(self, number: int) -> str:
        """Returns the events from the beginning to world `number`, one per line."""
        names: list[str] = []
        while number:
            names.append(f"  {self.by[number]}")
            number = self.parents[number]
        return "\n".join(reversed(names))


class Broken(AssertionError):
    """An invariant does not hold. The message is the shortest run that breaks it."""


class Search:
    """The events of a scope under a mutation, and all worlds that they lead to."""

    def __init__(self, scope: Scope, mutation: Mutation) -> None:
        self._scope = scope
        self._migrators = Migrators(mutation, scope)
        self._clients = Clients(mutation, scope)
        self._numbers = {begin(scope): 0}
        self.found = Found([begin(scope)])

    def run(self) -> None:
        """Searches all worlds. Raises Broken at the first one that breaks an invariant."""
        number = 0
        while number < len(self.found.worlds):
            world = self.found.worlds[number]
            try:
                check(world)
                self.found.edges.append(self._follow(number, world))
            except Violation as violation:
                raise Broken(f"{violation}; after\n{self.found.path(number)}\nin {world}") from None
            number += 1

    def _follow(self, number: int, world: World) -> list[int]:
        follow: list[int] = []
        for name, fault, after in self._events(world):
            found = self._numbers.setdefault(after, len(self.found.worlds))
            if found == len(self.found.worlds):
                self.found.worlds.append(after)
                self.found.parents.append(number)
                self.found.by.append(name)
            if not fault:
                follow.append(found)
        return follow

    def _events(self, world: World) -> Iterator[Event]:
        yield from self._migrators.events(world)
        yield from self._clients.events(world)
        for name, after in crashes(world):
            yield Event(name, True, after)
        turn = world.turn + 1
        if turn < len(self._scope.goals):
            turned = world._replace(turn=turn, wanted=self._scope.goals[turn])
            yield Event("the goal changes", True, turned)


def search(scope: Scope = HAND_OFF, mutation: Mutation = NONE) -> Found:
    """Returns all reachable worlds. Raises Broken with the shortest run that breaks an invariant."""
    whole = Search(scope, mutation)
    whole.run()
    return whole.found


def check(world: World) -> None:
    """Checks the invariants of a single world. Raises Violation."""
    readers = readable(world)
    if len(readers) > 1 or len(writable(world)) > 1:
        raise Violation("two shards serve the slot")
    for shard in readers:
        _check_served(world, shard)
    if world.cached is not None and abs(world.cached) < world.acked:
        raise Violation("the cache is older than what was acknowledged")
    held = [row.epoch for row in world.slots if row is not None and row.state in HOLDING]
    if len(set(held)) < len(held):
        raise Violation("two holders at one epoch")
    _check_pairs(world)


def _check_served(world: World, shard: int) -> None:
    """Checks that a read of the shard now returns the result of the last commit on any shard."""
    row = world.rows[shard]
    purged = row == 0 and world.latest < 0
    if row != world.latest and not purged:
        raise Violation(f"shard {shard} serves {row}, but the last commit was {world.latest}")


def _check_pairs(world: World) -> None:
    """Checks that the table lists every pair of states, and that the move is finished when no step remains."""
    moves = [seen for shard in range(len(world.slots)) if (seen := concerns(world, shard)) is not None]
    for seen in moves:
        wrong = found_wrong(world, seen)
        if wrong is not None:
            raise Violation(wrong)
    if not moves and not finished(world):
        raise Violation("the migrator finds nothing to do, yet it is not finished")


def finished(world: World) -> bool:
    """Whether the slot is on the desired shard, no other shard has its rows, and no hand-off is in progress."""
    for shard, row in enumerate(world.slots):
        if shard == world.wanted:
            if row is None or row.state is not SlotState.OWNED:
                return False
        elif world.rows[shard] or (row is not None and row.state is not SlotState.RELEASED):
            return False
    return True


def stuck(found: Found) -> list[int]:
    """Returns the worlds from which an undisturbed migrator that is run again cannot finish (invariant 8)."""
    alone = [world.migrators[1] == IDLE for world in found.worlds]
    before: list[list[int]] = [[] for _ in found.worlds]
    for number, follow in enumerate(found.edges):
        for after in follow:
            before[after].append(number)
    reached = {number for number, world in enumerate(found.worlds) if alone[number] and finished(world)}
    queue = deque(reached)
    while queue:
        for number in before[queue.popleft()]:
            if alone[number] and number not in reached:
                reached.add(number)
                queue.append(number)
    return [number for number in range(len(found.worlds)) if alone[number] and number not in reached]
