"""The client table: which processes call, and which of them are gone. Pure."""

from dataclasses import dataclass

CLIENT_SILENCE_S = 30.0
CLIENT_UNREACHABLE_S = 5.0  # a client that reconnects does so within a second


@dataclass(slots=True)
class Client:
    """One client process."""

    session: bytes
    peer: bytes
    python: str
    name: str  # of the user, for people; nodes are shared by users
    heard_s: float
    unreachable_s: float | None = None
    user: str = ""  # its public key, whatever the session says; empty where there are no keys

    def is_gone(self, now_s: float) -> bool:
        """Return whether it must be given up."""
        broken = (
            self.unreachable_s is not None and now_s - self.unreachable_s >= CLIENT_UNREACHABLE_S
        )
        return broken or now_s - self.heard_s >= CLIENT_SILENCE_S
