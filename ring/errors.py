"""What the pure part refuses; each message is one clear line that may be shown to an operator as it is."""


class RingError(Exception):
    """Base of the refusals of `ring`."""


class TopologyError(RingError):
    """The topology document, or the change asked for, is not possible."""


class OwnershipError(RingError):
    """A row of a shard's `slots` table is not one that the schema allows."""


class HandOffError(RingError):
    """Source and target are in a pair of states that no hand-off leads to; names both."""
