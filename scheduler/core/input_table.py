"""Which bytes of big inputs are on their way to nodes. Pure data; see big_inputs.py."""

from dataclasses import dataclass, field

from burla.protocol.messages import InputWanted

UNDER_WAY_BYTES = 64 << 20  # from all clients to all nodes: what this process may have to hold
STALLED_S = 5.0  # a client that sends nothing for so long holds up nobody else

Key = tuple[bytes, int]  # lease, and the first input of the leaf


@dataclass(slots=True)
class Asked:
    """What a client is to send of one leaf."""

    said: InputWanted  # the last question
    have: int  # bytes that the node is known to have
    at: int  # where the next piece begins
    stop: int  # where the last one ends
    heard_s: float  # when a piece came, or was asked for
    is_stalled: bool = False

    def size(self) -> int:
        """Return how many bytes of it may be here, now or soon."""
        return (self.at if self.is_stalled else self.stop) - self.have


@dataclass(slots=True, eq=False)
class InputTable:
    """All of them."""

    bytes_max: int = field(default_factory=lambda: UNDER_WAY_BYTES)
    asked: dict[Key, Asked] = field(default_factory=dict)
    waiting: dict[Key, InputWanted] = field(default_factory=dict)  # questions, in turn
    size: int = 0  # bytes under way

    def fits(self, more: int) -> bool:
        """Return whether so much more may be under way; something always may."""
        return not self.size or self.size + more <= self.bytes_max

    def put(self, key: Key, asked: Asked) -> None:
        """Begin, or begin anew."""
        self.drop(key)
        self.asked[key] = asked
        self.size += asked.size()

    def drop(self, key: Key) -> None:
        """Forget one, if it is known."""
        self.waiting.pop(key, None)
        if (asked := self.asked.pop(key, None)) is not None:
            self.size -= asked.size()

    def drop_lease(self, lease: bytes) -> None:
        """Forget all of one lease."""
        for key in [key for key in (*self.asked, *self.waiting) if key[0] == lease]:
            self.drop(key)

    def change(self, asked: Asked, *, have: int | None = None, stop: int | None = None) -> None:
        """Take note of what has arrived, or that more was asked for."""
        self.size -= asked.size()
        asked.have = asked.have if have is None else have
        asked.stop = asked.stop if stop is None else stop
        self.size += asked.size()

    def pass_on(self, asked: Asked, size: int, now_s: float) -> None:
        """Take note of a piece that was passed on."""
        self.size -= asked.size()
        asked.at, asked.heard_s, asked.is_stalled = asked.at + size, now_s, False
        self.size += asked.size()

    def stall(self, now_s: float) -> None:
        """Let nobody wait for clients that send nothing."""
        for asked in self.asked.values():
            if not asked.is_stalled and now_s >= asked.heard_s + STALLED_S:
                self.size -= asked.size()
                asked.is_stalled = True
                self.size += asked.size()

    def check(self) -> None:
        """Assert that the sum is right. Costs O(state): for tests."""
        assert self.size == sum(asked.size() for asked in self.asked.values())
        for asked in self.asked.values():
            assert asked.have <= asked.at <= asked.stop, asked
