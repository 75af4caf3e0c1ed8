"""One worker as the agent sees it: its pipes, its slate, and the spans it has. No event loop here.

What comes from the worker is checked against what it was dealt: user code shares its descriptors.
"""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from burla.nodelet.worker.pipes import (
    BadMessageError,
    Flag,
    Frame,
    Kind,
    Leaf,
    LeafMemory,
    Message,
    Parser,
    pack_span,
    send,
)
from burla.nodelet.worker.slate import CELLS, AgentSlate

from .output import OutputPipes
from .worker_events import Death, Outcomes, Range, Span, WorkerEvents

SLOW_STRIDE_S = 0.02  # a stride that lasts longer, and holds something back, is cut
SOCKET_BYTES = 1 << 20  # each way; with the usual 200 KiB both sides wake far more often
CUTS_MAX = 5  # signals for one stride, each after twice the time; it may be inside C code


class State(Enum):
    """What a worker is for."""

    BLANK = auto()  # forked, no function yet
    LOADING = auto()
    READY = auto()
    TEMPLATE = auto()  # has the function and only forks
    COPYING = auto()  # being forked from a template
    GONE = auto()


@dataclass(slots=True)
class _Dealt:
    """A span that is not settled."""

    name: int  # what the caller calls its cell
    batch: int
    ran: int  # outcomes up to here have come
    end: int  # what is from here on was stolen or given back


class GivenBack(NamedTuple):
    """[lo, hi) will not be run; `settled`: nothing else of the span will either."""

    cell: int
    lo: int
    hi: int
    settled: bool


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker."""

    number: int
    page: int
    sock: socket.socket
    pipes: OutputPipes
    slate: AgentSlate
    parser: Parser
    state: State
    pid: int = 0  # 0: not known yet
    was_ready: bool = False
    dealt: dict[int, _Dealt] = field(default_factory=dict)  # by cell of the slate, as dealt
    cells: dict[int, int] = field(default_factory=dict)  # the caller's name -> cell of the slate
    leaves: LeafMemory = field(default_factory=LeafMemory)
    load: list[Frame] = field(default_factory=list)  # a function to be loaded before the next span
    unsent: list[Frame] = field(default_factory=list)  # what the socket does not take now
    is_closed: bool = False  # nothing more is read from its socket
    died: tuple[str, int] | None = None
    _slow: tuple[int, int, int] = (-1, -1, 0)  # stride seen last: cell, begin; signals sent for it
    _slow_since_s: float = 0.0

    # --- spans ---

    def change_function(self, load: list[Frame]) -> None:
        """Have the worker load another function when it gets something to run."""
        self.load, self.leaves = load, LeafMemory()

    def take_load(self) -> list[Frame]:
        """Return what the worker is to load, if it has not been sent; it is now."""
        load, self.load = self.load, []
        return load

    def open(
        self,
        name: int,
        span: Span,
        leaves: Sequence[Leaf],
        *,
        left: int,
        slots: int,
        careful: bool,
    ) -> list[Frame]:
        """Take a cell for a span, which is called `name` from now on; return what to send."""
        assert name not in self.cells, name
        cell = next(number for number in range(CELLS) if number not in self.dealt)
        self.cells[name] = cell
        self.dealt[cell] = _Dealt(name, span.batch, span.lo, span.hi)
        self.slate.open(cell, span.lo, span.hi)
        flags = Flag.CAREFUL if careful else 0
        message = Message(Kind.SPAN, flags, cell, span.lo, span.hi, left, slots)
        return [*self.take_load(), *pack_span(message, leaves, self.leaves)]

    def steal(self, name: int, middle: int) -> Range | None:
        """Take what is not claimed of [middle, ...) of a span; None: nothing."""
        cell = self.cells.get(name)
        if cell is None:
            return None
        dealt = self.dealt[cell]
        lo, hi = self.slate.steal(cell, max(middle, dealt.ran))
        lo, hi = max(lo, dealt.ran), min(hi, dealt.end)
        if lo >= hi:
            return None
        dealt.end = lo
        return lo, hi

    def take(self, message: Message) -> Iterator[Outcomes | GivenBack]:
        """Yield what a message about a span means.

        Raises:
            BadMessageError: it contradicts what was dealt.
        """
        dealt = self.dealt.get(message.cell)
        if dealt is None or message.lo != dealt.ran or not dealt.ran <= message.hi <= dealt.end:
            raise BadMessageError(f"{message[:7]} for {dealt}")
        if message.kind != Kind.NOTHING:
            if message.hi == message.lo or not message.frames:
                raise BadMessageError(f"{message[:7]} without outcomes")
            dealt.ran = message.hi
            kind = Kind(message.kind)
            seconds = max(0, message.b) / 1e9
            _, _, _, lo, hi, _, _, frames = message
            yield Outcomes(dealt.name, dealt.batch, lo, hi, kind, seconds, frames)
        if message.flags & Flag.END:
            if message.a != dealt.ran:
                raise BadMessageError(f"{message[:7]} for {dealt}")
            del self.dealt[message.cell], self.cells[dealt.name]
            yield GivenBack(dealt.name, dealt.ran, dealt.end, True)
        elif message.flags & Flag.STOP and dealt.ran <= message.a < dealt.end:
            end, dealt.end = dealt.end, message.a
            yield GivenBack(dealt.name, message.a, end, False)

    def tell(self, message: Message, events: WorkerEvents) -> None:
        """Tell what a message about a span means.

        Raises:
            BadMessageError: it contradicts what was dealt.
        """
        for event in self.take(message):
            match event:
                case Outcomes():
                    events.on_outcomes(self.number, event)
                case GivenBack(cell, lo, hi, True):
                    events.on_settled(self.number, cell, lo, hi)
                case GivenBack(cell, lo, hi, _):
                    events.on_given_back(self.number, cell, lo, hi)

    # --- what the slate says ---

    def running(self) -> Range | None:
        """Return the stride whose outcomes have not come; for a worker that is dead."""
        cell, begin, end = self.slate.stride()
        dealt = self.dealt.get(cell)
        if dealt is None:
            return None
        lo, hi = max(begin, dealt.ran), min(end, dealt.end)
        return (lo, hi) if lo < hi else None

    def must_be_cut(self, now_s: float) -> bool:
        """Return whether the worker is in a stride that holds up outcomes or other calls."""
        cell, begin, end = self.slate.stride()
        dealt = self.dealt.get(cell)
        if dealt is None or dealt.ran >= end or begin >= dealt.end:
            return False  # between two strides
        if (cell, begin) != self._slow[:2]:
            self._slow, self._slow_since_s = (cell, begin, 0), now_s
            return False
        cuts = self._slow[2]
        if cuts >= CUTS_MAX or now_s - self._slow_since_s < SLOW_STRIDE_S * (1 << cuts):
            return False
        claimed = min(self.slate.claimed(cell), dealt.end)
        if claimed <= max(begin, dealt.ran) + 1 and dealt.ran >= begin:
            return False  # it holds up nothing but itself
        self._slow = (cell, begin, cuts + 1)
        return True

    def death(self) -> Death:
        """Return what the end of this worker means, once all it wrote was taken."""
        lost = tuple(Span(d.batch, d.ran, d.end) for d in self.dealt.values() if d.ran < d.end)
        how = self.died or ("exit", -1)
        return Death(how, self.was_ready, lost, self.running())

    # --- bytes ---

    def send_fds(self, buffers: list[Frame], fds: tuple[int, ...]) -> bool:
        """Send an order with descriptors to a template; return whether it took it."""
        try:
            socket.send_fds(self.sock, buffers, list(fds))
        except OSError:
            return False
        return True

    def flush(self) -> bool:
        """Send what the socket takes; return whether all of it is sent."""
        while self.unsent:
            try:
                self.unsent = send(self.sock, self.unsent)
            except BlockingIOError:
                return False
            except OSError:  # the worker is gone; its death is told by the zygote
                self.unsent = []
        return True

    def close(self) -> None:
        """Let go of all descriptors and of the page."""
        self.state = State.GONE
        self.unsent = []
        self.sock.close()
        self.pipes.close()
        self.slate.release()


def make_link(
    number: int, page: int, slate: AgentSlate, buffer: bytearray, state: State
) -> tuple[WorkerHandle, tuple[int, int, int]]:
    """Return the agent's end of a new worker, and the descriptors that the worker gets.

    Those are its socket, stdout and stderr; the caller gives them away and closes them.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for one in (ours, theirs):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    pipes = OutputPipes()
    link = WorkerHandle(number, page, ours, pipes, slate, Parser(buffer), state)
    return link, (theirs.detach(), *pipes.writers)
