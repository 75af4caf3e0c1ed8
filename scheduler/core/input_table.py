"""Which bytes of big inputs are on their way to nodes. Pure data; see big_inputs.py."""

from msgspec import Struct, field

from burla.protocol.messages import InputWanted

UNDER_WAY_BYTES = 64 << 20  # from all clients to all nodes: what this process may have to hold
STALLED_S = 5.0  # a client that sends nothing for so long holds up nobody else
LOST_S = 20.0  # and of that what was asked for is lost, if its node asks again
EARLY_MAX = 1024  # questions that came before what they are about

Key = tuple[bytes, int]  # lease, and the first input of the leaf


class Asked(Struct):
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


class Line(Struct):
    """What the client of one job is to send, one after the other, and what it will be asked."""

    size: int = 0  # bytes under way, whether they come or not
    asked: int = 0  # leaves of which that is
    heard_s: float = float("-inf")  # when a piece came
    waiting: dict[Key, InputWanted] = field(default_factory=dict)  # questions, in turn


class InputTable(Struct, eq=False):
    """All of them."""

    bytes_max: int = field(default_factory=lambda: UNDER_WAY_BYTES)
    asked: dict[Key, Asked] = field(default_factory=dict)
    lines: dict[bytes, Line] = field(default_factory=dict)  # by job; who is next comes first
    early: dict[Key, InputWanted] = field(default_factory=dict)  # about what has not come yet
    size: int = 0  # bytes under way
    waits: int = 0  # questions that wait

    def fits(self, more: int) -> bool:
        """Return whether so much more may be under way; something always may."""
        return not self.size or self.size + more <= self.bytes_max

    def is_share(self, job: bytes, more: int) -> bool:
        """Return whether a job may have so much more: it leaves room for the next one."""
        mine = self.lines[job].size
        return not mine or mine + more <= self.bytes_max // (len(self.lines) + 1)

    def wait(self, key: Key, said: InputWanted) -> None:
        """Let a question wait for its turn, where the one before it of this leaf does."""
        line = self._line(said.job)
        if not line.waiting:
            self.lines[said.job] = self.lines.pop(said.job)  # its turn is after all others'
        self.waits += key not in line.waiting
        line.waiting[key] = said

    def waiting(self, key: Key, job: bytes) -> InputWanted | None:
        """Return the question about a leaf that waits for its turn, if one does."""
        line = self.lines.get(job)
        return None if line is None else line.waiting.get(key)

    def take(self, job: bytes) -> tuple[Key, InputWanted]:
        """Take out the first question of a job, whose next one has its turn behind all others."""
        line = self.lines[job] = self.lines.pop(job)
        key = next(iter(line.waiting))
        self.waits -= 1
        return key, line.waiting.pop(key)

    def put(self, key: Key, asked: Asked) -> None:
        """Begin, or begin anew."""
        self._let_go(key)
        self.asked[key] = asked
        self._line(asked.said.job).asked += 1
        self._count(asked, 1)

    def drop(self, key: Key, job: bytes) -> None:
        """Forget one, if it is known."""
        self.early.pop(key, None)
        self._let_go(key)
        if (line := self.lines.get(job)) is not None:
            self.waits -= line.waiting.pop(key, None) is not None
            self._tidy(job)

    def drop_lease(self, lease: bytes, job: bytes) -> None:
        """Forget all of one lease, which is a job's."""
        line = self.lines.get(job)
        keys = (*self.asked, *self.early, *(() if line is None else line.waiting))
        for key in [key for key in keys if key[0] == lease]:
            self.drop(key, job)

    def change(self, asked: Asked, *, have: int | None = None, stop: int | None = None) -> None:
        """Take note of what has arrived, or that more was asked for."""
        self._count(asked, -1)
        asked.have = asked.have if have is None else have
        asked.stop = asked.stop if stop is None else stop
        self._count(asked, 1)

    def pass_on(self, asked: Asked, size: int, now_s: float) -> None:
        """Take note of a piece that was passed on."""
        self._count(asked, -1)
        asked.at, asked.heard_s, asked.is_stalled = asked.at + size, now_s, False
        self._count(asked, 1)
        self.lines[asked.said.job].heard_s = now_s

    def silent_s(self, asked: Asked, now_s: float) -> float:
        """Return for how long a client was asked for something and has sent nothing."""
        return now_s - max(asked.heard_s, self.lines[asked.said.job].heard_s)

    def stall(self, now_s: float) -> None:
        """Let nobody wait for clients that send nothing."""
        for asked in self.asked.values():
            is_due = asked.at < asked.stop and not asked.is_stalled
            if is_due and self.silent_s(asked, now_s) >= STALLED_S:
                self._count(asked, -1)
                asked.is_stalled = True
                self._count(asked, 1)

    def check(self) -> None:
        """Assert that the sums are right. Costs O(state): for tests."""
        assert self.size == sum(asked.size() for asked in self.asked.values())
        assert self.waits == sum(len(line.waiting) for line in self.lines.values())
        for asked in self.asked.values():
            assert asked.have <= asked.at <= asked.stop, asked
        for job, line in self.lines.items():
            own = [asked for asked in self.asked.values() if asked.said.job == job]
            assert (line.size, line.asked) == (sum(one.stop - one.have for one in own), len(own))
            assert line.asked or line.waiting, job

    def _line(self, job: bytes) -> Line:
        if (line := self.lines.get(job)) is None:
            line = self.lines[job] = Line()
        return line

    def _let_go(self, key: Key) -> None:
        if (asked := self.asked.pop(key, None)) is not None:
            self._count(asked, -1)
            self.lines[asked.said.job].asked -= 1

    def _count(self, asked: Asked, by: int) -> None:
        self.size += by * asked.size()
        self.lines[asked.said.job].size += by * (asked.stop - asked.have)

    def _tidy(self, job: bytes) -> None:
        line = self.lines[job]
        if not line.asked and not line.waiting:
            del self.lines[job]
