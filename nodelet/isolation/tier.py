"""How far a lease is shut in: the names of it, best first.

| tier | needs | a lease has |
|---|---|---|
| uid | root | a user id, processes, IPC, /tmp and limits of its own; nothing else can be written |
| namespaces | user namespaces | the same, under the nodelet's user id; the user's home is hidden |
| landlock | Landlock | a scratch directory; nothing else can be written, keys cannot be read |
| process | | the rights of the nodelet's user; the nodelet cannot be traced or read |
"""

from enum import StrEnum

BEST = "best"  # of these, what the machine allows


class Tier(StrEnum):
    """How a lease is shut in, best first; told to people."""

    UID = "uid"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    PROCESS = "process"

    def is_sandboxed(self) -> bool:
        """Return whether each lease has namespaces of its own."""
        return self in (Tier.UID, Tier.NAMESPACES)
