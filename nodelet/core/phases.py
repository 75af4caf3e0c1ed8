"""The life of a lease on its node. Pure."""

from enum import Enum, auto


class Phase(Enum):
    """How far a lease is."""

    QUEUED = auto()  # an earlier one is still stopping
    SERVING = auto()
    STOPPING = auto()
    STOPPED = auto()  # only unacknowledged outcomes and output are left
