"""One worker as the agent sees it: its pipes and its slate. No event loop here, and no policy.

Which spans it has is in the core, which checks what it says: user code shares its descriptors.
"""

import socket
from collections.abc import Sequence

from msgspec import Struct, field

from burla.nodelet.core.effects import StoredLeaf
from burla.nodelet.core.events import CellReport, Stride, WorkerState
from burla.nodelet.worker.pipes import (
    FACTS,
    WRITE_FRAMES_MAX,
    Flag,
    Frame,
    Kind,
    LeafMemory,
    Message,
    Parser,
    pack_span,
    send,
)
from burla.nodelet.worker.slate import CELLS, AgentSlate
from burla.protocol import messages as m
from burla.transport import sockets

from .input_files import Opened
from .output import OutputPipes

SOCKET_BYTES = 1 << 20  # each way; with the usual 200 KiB both sides wake far more often
KINDS: dict[int, m.Kind] = {
    Kind.RESULTS: m.Kind.RESULTS,
    Kind.RESULT: m.Kind.RESULT,
    Kind.ERROR: m.Kind.ERROR,
}


class Carrying(bytes):
    """Bytes of an order with which the descriptors of blobs go to the worker."""

    files: Sequence[Opened]

    def __new__(cls, data: Frame, files: Sequence[Opened]) -> "Carrying":
        """Return the bytes of `data`; the files stay open as long as these are there."""
        made = super().__new__(cls, data)
        made.files = files
        return made


class WorkerHandle(Struct, eq=False):
    """One worker."""

    number: int
    page: int
    sock: socket.socket
    pipes: OutputPipes
    slate: AgentSlate
    parser: Parser
    state: WorkerState
    pid: int = 0  # 0: not known yet
    leaves: LeafMemory = field(default_factory=LeafMemory)
    load: list[Frame] = field(default_factory=list)  # a function, before the next span
    unsent: list[Frame] = field(default_factory=list)  # what the socket does not take now
    carries: bool = False  # descriptors went with one of its spans
    is_closed: bool = False  # nothing more is read from its socket
    is_held: bool = False  # nor for a while: what it writes must wait
    is_junk: bool = False  # because what it says makes no sense
    killed_for: str = ""  # deaths.CLOSED, deaths.BROKEN: we did it

    # --- spans ---

    def change_function(self, load: list[Frame]) -> None:
        """Have the worker load another function when it gets something to run.

        A template, which never does, passes that on to those that it forks.
        """
        self.load, self.leaves = load, LeafMemory()
        self.slate.expire(None)  # indices begin anew

    def take_load(self) -> list[Frame]:
        """Return what the worker is to load, if it has not been sent; it is now."""
        load, self.load = self.load, []
        return load

    def open(
        self, message: Message, leaves: Sequence[StoredLeaf], files: Sequence[Opened] = ()
    ) -> list[Frame]:
        """Open the cell of a SPAN message; return what to send, with the files of its leaves."""
        self.slate.open(message.cell, message.lo, message.hi)
        if not files:
            return [*self.take_load(), *pack_span(message, leaves, self.leaves)]
        big = [leaf for leaf in leaves if leaf.size]
        new = [
            file
            for leaf, file in zip(big, files, strict=True)
            if self.leaves.find(leaf.batch, leaf.lo) is None
        ]
        span = pack_span(message, leaves, self.leaves)
        if new:
            span[0] = Carrying(span[0], new)
            self.carries = True
        return [*self.take_load(), *span]

    # --- what the slate says ---

    def stride(self) -> Stride:
        """Return the calls that the worker is in or was in last, as it says."""
        cell, lo, hi = self.slate.stride()
        first, end = self.slate.noted()
        at = max(lo, end) if first <= lo else lo
        return Stride(cell, lo, hi, self.slate.claimed(cell) if 0 <= cell < CELLS else 0, at)

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
                if type(self.unsent[0]) is Carrying:
                    self._carry(self.unsent[0])
                stop = self._next_carrying() if self.carries else 0
                if stop:  # what comes with that goes with its first byte
                    self.unsent[:stop] = send(self.sock, self.unsent[:stop])
                else:
                    self.unsent = send(self.sock, self.unsent)
            except BlockingIOError:
                return False
            except OSError:  # the worker is gone; its death is told by the zygote
                self.unsent = []
        return True

    def _next_carrying(self) -> int:
        """Return where, behind the first, an order waits with which descriptors go; 0: nowhere."""
        few = enumerate(self.unsent[1 : WRITE_FRAMES_MAX + 1], 1)
        return next((at for at, order in few if type(order) is Carrying), 0)

    def _carry(self, order: Carrying) -> None:
        """Send the beginning of an order with its descriptors; they go with its first byte."""
        fds = [file.fd for file in order.files]
        sent = socket.send_fds(self.sock, [order[:1]], fds)
        assert sent == 1, sent
        self.unsent[0] = memoryview(order)[1:]

    def close(self) -> None:
        """Let go of all descriptors and of the page."""
        self.state = WorkerState.GONE
        self.unsent = []
        self.sock.close()
        self.pipes.close()
        self.pipes.shown = [0, 0]
        self.slate.release()


def make_handle(
    number: int, page: int, slate: AgentSlate, buffer: bytearray, state: WorkerState
) -> tuple[WorkerHandle, tuple[int, int, int]]:
    """Return the agent's end of a new worker, and the descriptors that the worker gets.

    Those are its socket, stdout and stderr; the caller gives them away and closes them.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for one in (ours, theirs):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    pipes = OutputPipes()
    pipes.shown = slate.output
    parser = Parser(buffer, hold=sockets.hold)
    handle = WorkerHandle(number, page, ours, pipes, slate, parser, state)
    return handle, (theirs.detach(), *pipes.writers)


def report_of(message: Message) -> CellReport:
    """Return what a message about a span says."""
    kind, flags, cell, lo, hi, stop, nanoseconds, frames, at, size = message
    if kind == Kind.NOTHING:
        kind, frames = Kind.RESULTS, ()
    why, told, peak = None, ("", ""), 0
    if flags & Flag.FACTS and frames:
        peak, frames = facts_of(message)[0], frames[:-1]
    if flags & Flag.TOLD and len(frames) > 1:
        type_, _, text = bytes(frames[-1]).decode("utf-8", "replace").partition("\n")
        told, frames = (type_, text), frames[:-1]
        if flags & Flag.RETRY:
            why = type_.rpartition(".")[2]
    return CellReport(
        cell,
        lo,
        hi,
        KINDS[kind],
        max(0, nanoseconds) / 1e9,
        frames,  # type: ignore[arg-type]  # any buffer
        stop if flags & (Flag.STOP | Flag.END) else None,
        bool(flags & Flag.END),
        m.Fragment(lo, at, size) if size else None,
        why,
        told,
        max(0, peak),
    )


def facts_of(message: Message) -> tuple[int, int, int]:
    """Return memory, and where stdout and stderr of a call end; -1: not known."""
    if message.flags & Flag.FACTS and len(message.frames[-1]) == FACTS.size:
        peak, out, err = FACTS.unpack(message.frames[-1])
        return peak, out, err
    return -1, -1, -1
