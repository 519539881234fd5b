"""The topology: a versioned document that says which shards there are and how much each should hold.

A topology is a value: each change returns a new one with the next version. It is validated when it is made,
so a ring can be built from every `Topology`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NoReturn, Self

from ring.errors import TopologyError

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,30}")
"""Names of shards, for `fullmatch`: they appear in settings, file names and metric labels."""

WEIGHT_MAX: Final = 100.0
"""Beyond this weight, one shard's points would make building the ring take seconds."""

VIRTUAL_NODES_MAX: Final = 16_384
"""Most virtual nodes per unit of weight: as many as there are slots; more cannot balance any better."""

VERSION_MAX: Final = 2**63 - 1  # it is a bigint in every shard

_CLUSTER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HOST: Final = r"(?:[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.]+\])"  # a directory of sockets is percent-encoded
_ADDRESS: Final = re.compile(rf"{_HOST}:([0-9]{{1,5}})(?:,{_HOST}:([0-9]{{1,5}}))*/[^\s/@?#:]{{1,63}}")
_PORT: Final = re.compile(r":([0-9]+)(?=[,/])")


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of the topology.

    `weight` is its share relative to the others (0 < weight <= 100). `address` is `host:port/database`
    (several `host:port` by commas, a socket directory as host): never a user, never a password. A
    `draining` shard is to hold no slots, but still serves those that have not moved yet.
    Raises TopologyError; the message never repeats the address, which could hold a password.
    """

    name: str
    weight: float
    address: str
    draining: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "weight", _checked_weight(self.name, self.weight))
        _check_address(self.name, self.address)
        if type(self.draining) is not bool:
            raise TopologyError(f"shard {self.name}: draining must be true or false")


@dataclass(frozen=True, slots=True)
class Topology:
    """The shards of one cluster at one version, sorted by name.

    `virtual_nodes` is the number of points on the ring per unit of weight. While `paused`, the migrator
    begins no further move. At least one shard is not draining. Raises TopologyError.
    """

    cluster_id: str
    version: int
    virtual_nodes: int
    shards: tuple[Shard, ...]
    paused: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", tuple(sorted(self.shards, key=lambda shard: shard.name)))
        if not isinstance(self.cluster_id, str) or not _CLUSTER_ID.fullmatch(self.cluster_id):
            raise TopologyError("cluster_id must be 1 to 64 of A-Z a-z 0-9 _ -, starting with none of _ -")
        _check_integer("version", self.version, VERSION_MAX)
        _check_integer("virtual_nodes", self.virtual_nodes, VIRTUAL_NODES_MAX)
        if type(self.paused) is not bool:
            raise TopologyError("paused must be true or false")
        self._check_shards()

    def _check_shards(self) -> None:
        _refuse_repeated("name", (shard.name for shard in self.shards))
        _refuse_repeated("address", (shard.address for shard in self.shards))
        for shard in self.shards:
            if self.points_of(shard) < 1:
                raise TopologyError(
                    f"shard {shard.name}: weight {shard.weight:g} gives it no virtual node; "
                    f"the least is {1 / self.virtual_nodes:.2g}"
                )
        if all(shard.draining for shard in self.shards):
            raise TopologyError("at least one shard must not be draining: add another shard first")

    def points_of(self, shard: Shard) -> int:
        """Returns how many virtual nodes `shard` has on the ring when it is not draining."""
        return round(self.virtual_nodes * shard.weight)

    def shard(self, name: str) -> Shard:
        """Returns the shard called `name`. Raises TopologyError if there is none."""
        for shard in self.shards:
            if shard.name == name:
                return shard
        known = ", ".join(shard.name for shard in self.shards)
        raise TopologyError(f"there is no shard {name!r}; there are {known}")

    def with_shard(self, shard: Shard) -> Self:
        """Adds a shard, or takes back a draining one of the same name and address."""
        others = tuple(other for other in self.shards if other.name != shard.name)
        for known in self.shards:
            if known.name == shard.name and not known.draining:
                raise TopologyError(f"shard {shard.name} is there already; change its weight instead")
            if known.name == shard.name and known.address != shard.address:
                raise TopologyError(f"shard {shard.name} is draining at another address; use another name")
        return self._next(shards=(*others, shard))

    def with_weight(self, name: str, weight: float) -> Self:
        """Changes the weight of a shard that is not draining."""
        shard = self.shard(name)
        if shard.draining:
            raise TopologyError(
                f"shard {name} is draining, so its weight has no effect; add it again instead"
            )
        return self._with(replace(shard, weight=weight))

    def drained(self, name: str) -> Self:
        """Marks a shard as draining: all its slots are to move away."""
        shard = self.shard(name)
        if shard.draining:
            raise TopologyError(f"shard {name} is draining already")
        self._refuse_last(name, "drained")
        return self._with(replace(shard, draining=True))

    def without(self, name: str) -> Self:
        """Removes a shard. The caller makes sure that it holds no slots."""
        if not self.shard(name).draining:
            self._refuse_last(name, "removed")
        return self._next(shards=tuple(shard for shard in self.shards if shard.name != name))

    def with_paused(self, paused: bool) -> Self:
        """Pauses the migrator (True) or resumes it (False)."""
        return self._next(paused=paused)

    def back_to(self, goal: Topology) -> Self:
        """Returns the next version, which places every slot as `goal` did: what `cancel` publishes.

        Shards added after `goal` stay, as draining ones, since they may hold slots. `paused` stays too.
        """
        if goal.cluster_id != self.cluster_id:
            raise TopologyError(f"topology of cluster {goal.cluster_id}, but this is {self.cluster_id}")
        kept = {shard.name for shard in goal.shards}
        later = (replace(shard, draining=True) for shard in self.shards if shard.name not in kept)
        return self._next(shards=(*goal.shards, *later), virtual_nodes=goal.virtual_nodes)

    def _with(self, changed: Shard) -> Self:
        return self._next(shards=tuple(changed if s.name == changed.name else s for s in self.shards))

    def _next(self, **changes: Any) -> Self:
        return replace(self, version=self.version + 1, **changes)

    def _refuse_last(self, name: str, what: str) -> None:
        if all(shard.draining or shard.name == name for shard in self.shards):
            raise TopologyError(
                f"shard {name} is the last that is not draining and cannot be {what}: add another first"
            )

    def to_json(self) -> str:
        """Returns the canonical document: equal topologies give equal strings. Sorted keys, ASCII, no spaces."""
        shards = [{name: getattr(shard, name) for name in _SHARD_FIELDS} for shard in self.shards]
        document = {name: getattr(self, name) for name in _TOPOLOGY_FIELDS} | {"shards": shards}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a document that `to_json` wrote, in any spacing and order of fields.

        Raises TopologyError if it is not JSON, or for unknown, missing, repeated or ill-typed fields.
        """
        try:
            found = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise TopologyError("the topology is not JSON") from None
        document = _fields(found, _TOPOLOGY_FIELDS, "the topology")
        if not isinstance(document["shards"], list):
            raise TopologyError("the topology: shards must be a list")
        shards = tuple(Shard(**_fields(item, _SHARD_FIELDS, "a shard")) for item in document["shards"])
        return cls(**document | {"shards": shards})


_SHARD_FIELDS: Final = frozenset(field.name for field in fields(Shard))
_TOPOLOGY_FIELDS: Final = frozenset(field.name for field in fields(Topology))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses repeated fields: `json` itself would silently keep the last one."""
    _refuse_repeated("field", (name for name, _ in pairs))
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise TopologyError(f"the topology: {name} is not a number")


def _fields(found: object, expected: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TopologyError(f"{what} must be an object")
    if unknown := found.keys() - expected:
        raise TopologyError(f"{what} has unknown fields: {', '.join(sorted(unknown))}")
    if missing := expected - found.keys():
        raise TopologyError(f"{what} lacks fields: {', '.join(sorted(missing))}")
    return found


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise TopologyError(f"the topology has the {what} {value} twice")
        seen.add(value)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise TopologyError("a shard's name must be 1 to 31 of a-z 0-9 _ - and start with a letter")


def _checked_weight(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise TopologyError(f"shard {name}: its weight must be a number")
    if not 0 < weight <= WEIGHT_MAX:  # false for NaN and the infinities too
        raise TopologyError(f"shard {name}: its weight must be above 0 and at most {WEIGHT_MAX:g}")
    return float(weight)


def _check_address(name: str, address: object) -> None:
    if not isinstance(address, str) or "@" in address:
        raise TopologyError(f"shard {name}: its address must be host:port/database, with no user or password")
    if not _ADDRESS.fullmatch(address) or not address.isprintable():
        raise TopologyError(f"shard {name}: its address must look like host:port/database")
    if any(not 1 <= int(port) <= 65_535 for port in _PORT.findall(address)):
        raise TopologyError(f"shard {name}: the port in its address must be 1 to 65535")


def _check_integer(what: str, value: object, greatest: int) -> None:
    if type(value) is not int or not 1 <= value <= greatest:
        raise TopologyError(f"{what} must be a whole number from 1 to {greatest}")
