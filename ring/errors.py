"""The errors of the pure part. Each message is one line that may be shown to an operator as it is."""


class RingError(Exception):
    """Base of the errors of `ring`."""


class TopologyError(RingError):
    """The topology document, or the requested change, is invalid."""


class OwnershipError(RingError):
    """The schema does not allow this row of a shard's `slots` table."""


class HandOffError(RingError):
    """No hand-off leads to this pair of states on source and target; the message names both."""
