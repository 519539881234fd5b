"""Requests to change the topology: add, drain and re-weight shards, one or several at once. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ring.errors import TopologyError
from ring.topology import Shard, Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.dsn import address_of


@dataclass(frozen=True, slots=True)
class Add:
    """Adds a shard. `dsn` None: one more server of the local cluster."""

    name: str
    weight: float = 1.0
    dsn: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"add {self.name}" + (f" --weight {self.weight:g}" if self.weight != 1 else "")

    def apply_to(self, topology: Topology) -> Topology:
        """Without a DSN the shard gets a placeholder address, which is enough to place slots."""
        dsn = f"postgresql://to-be-started:5432/{self.name}" if self.dsn is None else self.dsn
        shard = Shard(self.name, self.weight, _address(self.name, dsn))
        for other in topology.shards:
            if other.address == shard.address and other.name != shard.name:
                raise TopologyError(f"that database is shard {other.name} of this cluster already")
        return topology.with_shard(shard)


@dataclass(frozen=True, slots=True)
class Drain:
    """Drains a shard: all its slots move to the others."""

    name: str

    def __str__(self) -> str:
        return f"drain {self.name}"

    def apply_to(self, topology: Topology) -> Topology:
        return topology.drained(self.name)


@dataclass(frozen=True, slots=True)
class Weight:
    """Changes a shard's share of the ring."""

    name: str
    weight: float

    def __str__(self) -> str:
        return f"weight {self.name} {self.weight:g}"

    def apply_to(self, topology: Topology) -> Topology:
        return topology.with_weight(self.name, self.weight)


ChangeRequest = Add | Drain | Weight


def _address(name: str, dsn: str) -> str:
    try:
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise ValueError
        return address_of(dsn)
    except ValueError:
        raise TopologyError(
            f"the DSN of shard {name} must start with postgresql:// and must look like host:port/database"
        ) from None


USAGE = "write: add NAME [--dsn DSN] [--weight W], drain NAME, weight NAME W; several may follow each other"


def parse_changes(words: Sequence[str]) -> list[ChangeRequest]:
    """Parses `add db4 --weight 2 drain db1 weight db0 0.5` into changes, in order. Raises ConfigError."""
    rest = deque(words)
    changes: list[ChangeRequest] = []
    while rest:
        match rest.popleft():
            case "add":
                changes.append(_add(rest))
            case "drain":
                changes.append(Drain(_next(rest)))
            case "weight":
                changes.append(Weight(_next(rest), _number(_next(rest))))
            case word:
                raise ConfigError(f"{word!r} is no change: {USAGE}")
    if not changes:
        raise ConfigError(USAGE)
    return changes


def _add(rest: deque[str]) -> Add:
    name = _next(rest)
    options: dict[str, str] = {}
    while rest and rest[0].startswith("--"):
        option, equals, value = rest.popleft().partition("=")
        if option not in ("--dsn", "--weight"):
            raise ConfigError(f"{option} is no option of add: {USAGE}")
        options[option] = value if equals else _next(rest)
    return Add(name, _number(options.get("--weight", "1")), options.get("--dsn"))


def _next(rest: deque[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise ConfigError(USAGE)
    return rest.popleft()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no weight: write a number such as 1 or 0.5") from None


def goal_of(topology: Topology, changes: Sequence[ChangeRequest]) -> Topology:
    """Returns the topology after all `changes`, as the next version. Raises ConfigError."""
    goal = topology
    try:
        for change in changes:
            goal = change.apply_to(goal)
    except TopologyError as error:
        raise ConfigError(str(error)) from None
    return Topology(
        cluster_id=goal.cluster_id,
        version=topology.version + 1,
        virtual_nodes=goal.virtual_nodes,
        shards=goal.shards,
        paused=topology.paused,
    )
