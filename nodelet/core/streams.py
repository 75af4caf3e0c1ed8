"""What a lease sends and must keep until it is acknowledged: outcomes and output. Pure.

The windows of unacknowledged bytes are the flow control: while one is full, nothing is read from
the workers, so that their pipes fill and they wait.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from burla.limits import FRAME_BYTES_MAX
from burla.protocol.codec import pack_big, pack_runs
from burla.protocol.fields import Try
from burla.protocol.mac import seal
from burla.protocol.messages import (
    LEASE_OUTPUT_WINDOW,
    OUTPUT_CHUNKS_MAX,
    RUNS_MAX,
    Fragment,
    Outcomes,
    Output,
    Run,
)
from burla.protocol.ranges import Range, Ranges

from .effects import Send
from .events import NOBODY, CellReport
from .tallying import Tallying

GATHER_BYTES = 1 << 20  # what has grown this big is sent at once; merging more saves nothing
GATHER_CALLS = 1 << 16  # likewise: its caller unpickles them while the next are run, not at the end
OUTPUT_GATHER_S = 0.02  # a print is seen within 100 ms, and 50 messages a second are few
LINE_WAIT_S = 0.05  # for the rest of a line, so that lines of several workers don't mix
LINE_LATE_S = 0.01  # whoever looks so late has read nothing meanwhile: the rest may be there
LINE_WAIT_MOST_S = 1.0  # for a line, however often that happens
LINE_BYTES_MAX = 256 << 10  # a longer beginning of a line is not waited with: what a pipe holds
OUTPUT_MESSAGE_BYTES = 256 << 10  # heartbeats get between two of them


class _Kept(Struct, frozen=True):
    """A message that is not acknowledged."""

    message: Outcomes
    payload: list[bytes]
    size: int


class OutcomeStream:
    """Outcomes of one lease, from a worker's pipe to the acknowledgement."""

    def __init__(
        self, lease: bytes, window: int, secret: bytes = b"", *, blake3: bool = False
    ) -> None:
        """Keep at most `window` bytes unacknowledged, but always one message; seal by `secret`."""
        self._blake3 = blake3
        self.held = Ranges()  # indices whose outcomes are here
        self.due_since_s: float | None = None  # when the oldest unsent run came
        self._lease, self._window, self._secret = lease, window, secret
        self._runs: deque[tuple[Run, Sequence[bytes], int]] = deque()
        self._fragments: deque[tuple[Fragment, Run | None, bytes]] = deque()  # with a run: the last
        self._stops: set[int] = set()  # which of them end the job
        self._gathered = 0  # bytes in `_runs`
        self._calls = 0  # likewise
        self._tried: list[Try] = []  # calls that have failed and are called again
        self.tally = Tallying()
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._seq = 0

    def add(self, run: Run, frames: Sequence[bytes], now_s: float, *, stops: bool = False) -> None:
        """Take a run that was read from a worker; `stops`: it is why the job ends."""
        size = sum(map(len, frames))
        self._runs.append((run, frames, size))
        if stops:
            self._stops.add(run.lo)
        self._gathered += size
        self._calls += run.hi - run.lo
        self.held.add(run.lo, run.hi)
        if self.due_since_s is None:
            self.due_since_s = now_s

    def add_fragment(self, part: CellReport, run: Run | None, now_s: float) -> None:
        """Take a part of a big outcome; `run`: it is the last one, of this run."""
        assert part.fragment is not None
        data = part.frames[0]
        self._fragments.append((part.fragment, run, data))
        self._gathered += len(data)
        if run is not None:
            self.held.add(run.lo, run.hi)
        if self.due_since_s is None:
            self.due_since_s = now_s

    def note_try(self, tried: Try, now_s: float) -> None:
        """Take a call that has failed and is called again."""
        self._tried.append(tried)
        if self.due_since_s is None:
            self.due_since_s = now_s

    def is_big(self) -> bool:
        """Return whether what was gathered should go at once."""
        many = max(len(self._runs), len(self._tried)) >= RUNS_MAX or self._calls >= GATHER_CALLS
        return many or self._gathered >= GATHER_BYTES or bool(self._fragments)

    def is_full(self) -> bool:
        """Return whether workers must wait."""
        return self._kept_bytes + self._gathered >= self._window

    def may_send(self) -> bool:
        """Return whether something waits and the window has room for it."""
        room = not self._kept or self._kept_bytes < self._window
        return room and bool(self._runs or self._fragments or self._tried)

    def take(self, output: int, call_s: float) -> Send:
        """Return the next message; what it holds is kept until `ack`."""
        if self._fragments:
            return self._take_fragment(output, call_s)
        runs: list[tuple[Run, Sequence[bytes]]] = []
        done = Ranges()
        failed = False
        size = 0
        while self._runs and len(runs) < RUNS_MAX and size < GATHER_BYTES:
            run, frames, bytes_ = self._runs.popleft()
            runs.append((run, frames))
            done.add(run.lo, run.hi)
            self._calls -= run.hi - run.lo
            failed = failed or run.lo in self._stops
            self._stops.discard(run.lo)
            size += bytes_
        table, payload = pack_runs(runs)
        message = Outcomes(
            lease=self._lease,
            seq=self._seq + 1,
            done=tuple(done),
            failed=failed,
            runs=table,
            output=output,
            call_s=call_s,
            tried=tuple(self._tried[:RUNS_MAX]),
            tally=self.tally.told(),
        )
        del self._tried[:RUNS_MAX]
        return self._keep(message, payload, size)

    def _take_fragment(self, output: int, call_s: float) -> Send:
        fragment, run, data = self._fragments.popleft()
        message = Outcomes(
            lease=self._lease,
            seq=self._seq + 1,
            done=() if run is None else ((run.lo, run.hi),),
            failed=False,
            runs=b"" if run is None else pack_big(run, fragment.size),
            output=output,
            call_s=call_s,
            fragment=fragment,
            tally=None if run is None else self.tally.told(),
        )
        return self._keep(message, [data], len(data))

    def _keep(self, message: Outcomes, payload: list[bytes], size: int) -> Send:
        """Return what sends a message under the next number, and keep it."""
        made = seal(self._secret, message, payload, blake3=self._blake3)
        message = replace(message, seal=made)
        self._seq += 1
        self._gathered -= size
        self._kept_bytes += size
        self._kept.append(_Kept(message, payload, size))
        if not self._runs and not self._fragments and not self._tried:
            self.due_since_s = None
        return Send(message, payload)

    def ack(self, seq: int) -> None:
        """Forget the messages up to `seq`; one that was never sent changes nothing."""
        while self._kept and self._kept[0].message.seq <= seq <= self._seq:
            kept = self._kept.popleft()
            self._kept_bytes -= kept.size
            for lo, hi in kept.message.done:
                self.held.remove(lo, hi)

    def again(self) -> list[Send]:
        """Return all that is not acknowledged."""
        return [Send(kept.message, kept.payload) for kept in self._kept]

    def drop(self) -> None:
        """Forget everything: it is not wanted any more."""
        self._runs.clear()
        self._fragments.clear()
        self._stops.clear()
        self._tried.clear()
        self.tally = Tallying()
        self._kept.clear()
        self._gathered = self._calls = self._kept_bytes = 0
        self.held = Ranges()
        self.due_since_s = None

    def is_empty(self) -> bool:
        """Return whether all is acknowledged."""
        return not (self._runs or self._fragments or self._tried or self._kept)

    def snapshot(self) -> dict[str, int]:
        """Return what is here, in messages and bytes, for people."""
        return {
            "runs_unsent": len(self._runs),
            "fragments_unsent": len(self._fragments),
            "bytes_unsent": self._gathered,
            "messages_unacknowledged": len(self._kept),
            "bytes_unacknowledged": self._kept_bytes,
            "last_seq": self._seq,
        }

    def check(self) -> None:
        """Assert that the sums are right."""
        flowing = sum(len(data) for *_, data in self._fragments)
        assert self._gathered == sum(size for *_, size in self._runs) + flowing
        assert self._calls == sum(run.hi - run.lo for run, *_ in self._runs)
        assert self._kept_bytes == sum(kept.size for kept in self._kept)
        parts = [(run.lo, run.hi) for run, *_ in self._runs]
        parts += [(run.lo, run.hi) for _, run, _ in self._fragments if run is not None]
        parts += [part for kept in self._kept for part in kept.message.done]
        assert self.held.total == sum(hi - lo for lo, hi in parts), "an outcome twice"
        waits = self._runs or self._fragments or self._tried
        assert (self.due_since_s is not None) == bool(waits)


class _Line(Struct):
    """The beginning of a line that a worker has written to one stream."""

    data: bytes
    since_s: float
    of: Range  # the inputs that it may be of
    is_due: bool = False  # its worker is through: it goes ahead of the next outcomes


class _Chunk(Struct):
    """What was written to one stream of one worker."""

    worker: int
    stream: int
    pieces: list[bytes]
    of: Range

    def takes(self, worker: int, stream: int, of: Range) -> bool:
        """Return whether something is merged with this: of one call only what is its own."""
        if self.worker != worker or self.stream != stream:
            return False
        return self.of == of or (_is_several(self.of) and _is_several(of))


_Sent = tuple[int, bytes, Range]  # stream, data, of which inputs it may be


def _is_several(of: Range) -> bool:
    return of[1] - of[0] > 1


def _both(one: Range, other: Range) -> Range:
    """Return the inputs that something may be of that has come in two parts."""
    if one == NOBODY or other == NOBODY:
        return other if one == NOBODY else one
    return min(one[0], other[0]), max(one[1], other[1])


class OutputStream:
    """Output of one lease, from a worker's pipe to the acknowledgement."""

    def __init__(self, lease: bytes) -> None:
        """Start with chunk number 1."""
        self.number = 0  # of the last chunk that was sent
        self.due_since_s: float | None = None
        self._lease = lease
        self._gathered: deque[_Chunk] = deque()
        self._gathered_bytes = 0  # `_lines` included
        self._last_bytes = 0  # in the newest chunk of `_gathered`
        self.lines: dict[tuple[int, int], _Line] = {}  # begun, by worker and stream
        self._unread_s = 0.0  # when the workers were last made to wait
        self._kept: deque[_Sent] = deque()  # the last is `number`
        self._kept_bytes = 0

    def add(self, worker: int, stream: int, data: bytes, now_s: float, of: Range = NOBODY) -> None:
        """Take what a worker wrote; the beginning of a line waits a moment for the rest."""
        self._gathered_bytes += len(data)
        line = self.lines.pop((worker, stream), None)
        since_s = now_s
        if line is not None:
            data, since_s, before = line.data + data, line.since_s, line.of
            if before != of and (first := data.find(b"\n") + 1):
                self._gather(worker, stream, data[:first], since_s, _both(before, of))
                data, since_s = data[first:], now_s
            elif before != of:
                of = _both(before, of)
        end = data.rfind(b"\n") + 1
        if end:
            self._gather(worker, stream, data[:end], since_s, of)
            data, since_s = data[end:], now_s
        if len(data) >= LINE_BYTES_MAX:
            self._gather(worker, stream, data, since_s, of)
        elif data:
            self.lines[worker, stream] = _Line(data, since_s, of)

    def mark(self, worker: int) -> None:
        """Note that a worker is through: what it wrote must go ahead of the next outcomes."""
        for stream in (1, 2) if self.lines else ():
            if line := self.lines.get((worker, stream)):
                line.is_due = True

    def finish(self, worker: int) -> None:
        """Let the last words of a dead worker go before anything that others say from now on."""
        for stream in (1, 2) if self.lines else ():
            if line := self.lines.pop((worker, stream), None):
                self._gather(worker, stream, line.data, line.since_s, line.of)

    def hold(self, now_s: float) -> None:
        """Note that the workers are not read from now: the rest of a line cannot come."""
        self._unread_s = now_s

    def release(self, now_s: float, *, marked: bool = False) -> None:
        """Let the lines go that have waited long enough, or also those that are marked."""
        is_late = bool(self.lines) and now_s >= self.lines_due_s() + LINE_LATE_S
        if is_late:
            self.hold(now_s)
        for (worker, stream), line in list(self.lines.items()):
            due_s = max(line.since_s, self._unread_s) + LINE_WAIT_S
            if is_late:
                due_s = min(due_s, line.since_s + LINE_WAIT_MOST_S)
            old = now_s >= due_s
            if old or (marked and line.is_due):
                del self.lines[worker, stream]
                self._gather(worker, stream, line.data, line.since_s, line.of)

    def lines_due_s(self) -> float:
        """Return when `release` is due; some line must wait."""
        first_s = min(line.since_s for line in self.lines.values())
        return max(first_s, self._unread_s) + LINE_WAIT_S

    def _gather(self, worker: int, stream: int, data: bytes, since_s: float, of: Range) -> None:
        """Let `data` go with the next message, merged with what the same stream had before."""
        if self.due_since_s is None:
            self.due_since_s = since_s
        last = self._gathered[-1] if self._gathered else None
        fits = self._last_bytes + len(data) <= OUTPUT_MESSAGE_BYTES
        if last is not None and fits and last.takes(worker, stream, of):
            last.pieces.append(data)
            last.of = _both(last.of, of)
            self._last_bytes += len(data)
        else:
            for at in range(0, len(data), FRAME_BYTES_MAX):
                piece = data[at : at + FRAME_BYTES_MAX]
                self._gathered.append(_Chunk(worker, stream, [piece], of))
            self._last_bytes = len(data)

    def is_big(self) -> bool:
        """Return whether what was gathered should go at once."""
        return self._gathered_bytes >= OUTPUT_MESSAGE_BYTES

    def is_full(self) -> bool:
        """Return whether workers must wait."""
        return self._kept_bytes + self._gathered_bytes >= LEASE_OUTPUT_WINDOW

    def waits_for_ack(self) -> bool:
        """Return whether an acknowledgement can still make room."""
        return bool(self._kept) or bool(self._gathered)

    def is_blocked(self) -> bool:
        """Return whether something waits for which the window has no room."""
        return bool(self._gathered) and not self._has_room()

    def _has_room(self) -> bool:
        return not self._kept or self._kept_bytes < LEASE_OUTPUT_WINDOW

    def take(self) -> list[Send]:
        """Return what was gathered as far as the window has room."""
        chunks: list[_Sent] = []
        while self._gathered and self._has_room():
            chunk = self._gathered.popleft()
            data = b"".join(chunk.pieces)
            chunks.append((chunk.stream, data, chunk.of))
            self._kept.append(chunks[-1])
            self._gathered_bytes -= len(data)
            self._kept_bytes += len(data)
        first = self.number + 1
        self.number += len(chunks)
        if not self._gathered:
            self.due_since_s = None
            self._last_bytes = 0
        return self._messages(first, chunks, replay=False)

    def ack(self, number: int) -> None:
        """Forget the chunks up to `number`; one that was never sent changes nothing."""
        while self._kept and self.number - len(self._kept) < number <= self.number:
            self._kept_bytes -= len(self._kept.popleft()[1])

    def again(self, after: int, *, replay: bool) -> list[Send]:
        """Return what is not acknowledged and comes after chunk `after`."""
        before = self.number - len(self._kept)
        skip = max(0, after - before)
        return self._messages(before + skip + 1, list(self._kept)[skip:], replay=replay)

    def drop(self) -> None:
        """Forget everything: it is not wanted any more."""
        self._gathered.clear()
        self.lines.clear()
        self._kept.clear()
        self._gathered_bytes = self._kept_bytes = self._last_bytes = 0
        self.due_since_s = None

    def is_empty(self) -> bool:
        """Return whether all is acknowledged."""
        return not self._gathered and not self._kept and not self.lines

    def snapshot(self) -> dict[str, int]:
        """Return what is here, in chunks and bytes, for people."""
        return {
            "bytes_unsent": self._gathered_bytes,
            "lines_begun": len(self.lines),
            "chunks_unacknowledged": len(self._kept),
            "bytes_unacknowledged": self._kept_bytes,
            "last_number": self.number,
        }

    def check(self) -> None:
        """Assert that the sums are right."""
        lines = sum(len(line.data) for line in self.lines.values())
        gathered = sum(len(data) for chunk in self._gathered for data in chunk.pieces)
        assert self._gathered_bytes == gathered + lines
        assert self._kept_bytes == sum(len(data) for _, data, _ in self._kept)
        assert len(self._kept) <= self.number
        assert (self.due_since_s is not None) == bool(self._gathered)

    def _messages(self, number: int, chunks: list["_Sent"], *, replay: bool) -> list[Send]:
        """Return messages with `chunks`, the first of which has this number."""
        sends: list[Send] = []
        streams: list[int] = []
        inputs: list[Range] = []
        payload: list[bytes] = []
        size = 0
        for at, (stream, data, of) in enumerate(chunks):
            streams.append(stream)
            inputs.append(of)
            payload.append(data)
            size += len(data)
            full = size >= OUTPUT_MESSAGE_BYTES or len(streams) == OUTPUT_CHUNKS_MAX
            if full or at == len(chunks) - 1:
                facts = (tuple(streams), replay, tuple(inputs))
                sends.append(Send(Output(self._lease, number, *facts), payload))
                number += len(streams)
                streams, inputs, payload, size = [], [], [], 0
        return sends
