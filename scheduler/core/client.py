"""The client table: which processes call, and which of them have fallen silent. Pure."""

from msgspec import Struct

SILENT_S = 30.0
UNREACHABLE_S = 5.0  # a client that reconnects does so within a second
# libzmq ends a connection on which nothing is heard for 20 s; one that ends sooner was closed at
# its other end: the process has ended, or what forwards it (a tunnel) has.
CLOSED_S = 15.0
AWAY_LIMIT_S = 600.0  # one that is away for longer is given up, if nothing else is said


class Client(Struct):
    """One client process."""

    session: bytes
    peer: bytes
    python: str
    name: str  # of the user, for people; nodes are shared by users
    heard_s: float
    unreachable_s: float | None = None
    user: str = ""  # its public key, whatever the session says; empty where there are no keys
    away_s: float | None = None  # since when it is known to be away; None: it is not
    can_detach: bool = False  # it can be asked to detach a job of its own
    knows_keys: bool = False  # it can be told of another key of the scheduler
    sent_s: float = float("-inf")  # when a piece of a blob, or of a big input, came

    def is_absent(self, now_s: float) -> bool:
        """Return whether it is silent for longer than a reconnect or a busy process explains."""
        broken = self.unreachable_s is not None and now_s - self.unreachable_s >= UNREACHABLE_S
        return broken or now_s - self.heard_s >= SILENT_S

    def has_hung_up(self) -> bool:
        """Return whether its connection was closed at its end, and not for want of a word."""
        return self.unreachable_s is not None and self.unreachable_s - self.heard_s < CLOSED_S
