"""Writes what calls printed to the caller's stdout and stderr, in a thread of its own.

A terminal or pipe may be slow, and the thread that owns the sockets must never wait for it. The
thread starts with the first output, so a call without prints pays nothing.
"""

import codecs
import threading
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from typing import TextIO

from burla.core.effects import Write
from burla.protocol.messages import NOTICE, STDERR, STDOUT
from burla.transport.threads import leave_signals
from burla.values.records import RecordReader

from .cells import context_of_cell
from .progress import JobProgress
from .records import hand_over
from .streams import is_one_place, is_written_in_pieces

ABANDON_S = 1.0  # a writer that hangs in a full pipe is left to itself after this long
BATCH_MAX = 64  # written before it is flushed and acknowledged
HOLD_S = 0.25  # output of calls waits so long for code of the caller that may be in a `print`


class Printer:
    """Writes to the streams that were `sys.stdout` and `sys.stderr` at the call."""

    def __init__(
        self,
        stdout: TextIO | None,
        stderr: TextIO | None,
        written: Callable[[bytes, int], None],
        failed: Callable[[BaseException], None],
        token: bytes = b"",
    ) -> None:
        """Start nothing yet.

        Args:
            stdout: where stdout of the calls goes; None: nowhere, as `print` has it.
            stderr: the same for stderr.
            token: what log records in it begin with; empty: there are none.
            written: told lease and number of the last chunk that was written.
            failed: told once what writing raised, such as BrokenPipeError.
        """
        self._streams = {STDOUT: stdout, STDERR: stderr}
        self._written, self._failed = written, failed
        self._queue: SimpleQueue[Write | str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._abandoned = False
        self._decoders: dict[tuple[bytes, int], codecs.IncrementalDecoder] = {}
        self._has_one: bool | None = None  # both streams are one place; not looked at yet
        self._in_line = False  # where stderr goes, the last line has not ended
        self._last = STDOUT  # the stream that was written to last
        self._was_noticed = False  # the notice of the job is shown
        self._unflushed = False
        self._token = token
        self._readers: dict[tuple[bytes, int], RecordReader] = {}  # by lease and stream
        self._context = context_of_cell()  # filters of log records may look into it, too
        self._starting = threading.Lock()
        self._progress: JobProgress | None = None  # of a job that takes long enough to be shown
        self._drawing = (
            threading.Lock()
        )  # held while its line is written or wiped, and see `_turn_to_write`
        self._is_paused = False  # the caller's own code runs, which may print
        self._in_pieces = is_written_in_pieces(stdout) or is_written_in_pieces(stderr)
        self._may_write: threading.Event | None = None  # while that code may write in pieces
        self._went_well = False

    @property
    def stderr(self) -> TextIO | None:
        """Where stderr of the calls goes."""
        return self._streams[STDERR]

    def put(self, what: Write | str) -> None:
        """Write output, or a line of ours on stderr. To be called by one thread only."""
        self._queue.put(what)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:  # output may begin just when the job is shown
            if self._thread is None:
                run = partial(self._context.run, self._run)
                thread = threading.Thread(target=run, name="burla-print", daemon=True)
                self._thread = thread
                thread.start()

    def show(self, progress: JobProgress) -> None:
        """Show the progress of the job from now on."""
        self._progress = progress
        self._queue.put("")  # who waits for output looks at the clock as well
        if self._thread is None:
            self._start()

    def pause(self) -> bool:
        """Let the caller's code print: nothing is drawn until `resume`; False: it was so."""
        if self._is_paused:
            return False
        self._is_paused = True
        if self._in_pieces:
            self._may_write = threading.Event()
        if self._progress is None and not self._in_pieces:
            return True
        # whoever draws or writes may hang in a full pipe
        if self._drawing.acquire(timeout=HOLD_S if self._progress is None else ABANDON_S):
            try:
                if self._progress is not None:
                    self._progress.clear()
            finally:
                self._drawing.release()
        return True

    def resume(self) -> None:
        """Draw again, and write at once."""
        self._is_paused = False
        may_write, self._may_write = self._may_write, None
        if may_write is not None:
            may_write.set()

    def wait_written(self, *, went_well: bool = False) -> None:
        """Return when all is written and the thread has ended; nobody may `put` any more.

        `went_well`: the job is complete, so that its summary is shown.
        """
        self._went_well = went_well
        self.resume()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def abandon(self) -> None:
        """Write nothing more. May be called in any thread, also by the garbage collector.

        Nobody is told of anything any more, so that who was is not part of a ring with this.
        """
        self._abandoned = True
        self._written, self._failed = _nobody_written, _nobody_failed
        may_write, self._may_write = self._may_write, None
        if may_write is not None:
            may_write.set()
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(ABANDON_S)

    def _run(self) -> None:
        leave_signals()
        try:
            while (batch := self._next_batch()) is not None and not self._abandoned:
                self._clear(batch)
                with self._turn_to_write(batch):
                    self._write_batch(batch)
                newest = {what.lease: what.number for what in batch if isinstance(what, Write)}
                for lease, number in newest.items():
                    self._written(lease, number)
                self._tick()
            self._clear(("",))
            if not self._abandoned:
                for (lease, stream), reader in self._readers.items():
                    self._write(stream, self._decoder(lease, stream).decode(reader.rest()))
                for (_, stream), decoder in self._decoders.items():
                    self._write(stream, decoder.decode(b"", final=True))
                self._flush()
            if self._progress is not None:
                self._progress.end(went_well=self._went_well and not self._abandoned)
        except BaseException as error:  # it belongs to the caller, as an error of `print` does
            self._failed(error)

    def _next_batch(self) -> list[Write | str] | None:
        """Return what there is, when there is something or it is time to draw; None at the end."""
        batch: list[Write | str] = []
        while len(batch) < BATCH_MAX:
            tick_s = None if self._progress is None else self._progress.tick_s()
            try:
                what = self._queue.get(timeout=tick_s)
            except Empty:
                return batch
            if what is None:
                self._queue.put(None)  # for the next turn
                return batch or None
            if what != "":
                batch.append(what)
            if self._queue.empty():
                return batch
        return batch

    def _clear(self, batch: Sequence[Write | str]) -> None:
        """Wipe the line of the job, if something is to be written there."""
        if self._progress is not None and batch:
            with self._drawing:
                self._progress.clear()

    def _turn_to_write(self, batch: Sequence[Write | str]) -> AbstractContextManager[object]:
        """Return what keeps output out of lines that the caller's code writes in pieces.

        That code may run for as long as it likes: it is waited for once, and not for long.
        """
        if not self._in_pieces or not batch:
            return nullcontext()
        may_write = self._may_write
        if may_write is not None and not may_write.wait(HOLD_S):
            may_write.set()
        return self._drawing

    def _write_batch(self, batch: Sequence[Write | str]) -> None:
        for what in batch:
            if isinstance(what, Write):
                self._write_output(what)
            else:
                self._write(STDERR, "\n" * self._in_line + what + "\n")
        self._flush()

    def _tick(self) -> None:
        """Show how far the job is, if it is time to."""
        if (progress := self._progress) is not None:
            with self._drawing:
                progress.tick(may_draw=not (self._in_line or self._is_paused))
                if is_told := progress.is_told:
                    progress.clear()
            if is_told:  # without the lock: it may wait for who needs it
                progress.tell()
                with self._drawing:
                    progress.tick(may_draw=not (self._in_line or self._is_paused))

    def _write_output(self, output: Write) -> None:
        at = 0
        for stream, run in groupby(output.streams):
            count = len(list(run))
            data = b"".join(output.chunks[at : at + count])
            at += count
            if stream == NOTICE:
                self._show_notice(data)
                continue
            decoder = self._decoder(output.lease, stream)
            if not self._token:
                self._write(stream, decoder.decode(data))
                continue
            reader = self._readers.get((output.lease, stream))
            if reader is None:  # on stdout as well: both may be one
                reader = self._readers[output.lease, stream] = RecordReader(self._token)
            for part in reader.feed(data):
                if isinstance(part, bytes):
                    self._write(stream, decoder.decode(part))
                else:
                    self._flush()  # what was printed before it
                    hand_over(part)

    def _decoder(self, lease: bytes, stream: int) -> codecs.IncrementalDecoder:
        decoder = self._decoders.get((lease, stream))
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoders[lease, stream] = decoder
        return decoder

    def _show_notice(self, data: bytes) -> None:
        """Write what a node has to say, if no other has said it before."""
        if not self._was_noticed:
            self._was_noticed = True
            line = data.partition(b"\n")[0].decode("utf-8", "replace")
            self._write(STDERR, "\n" * self._in_line + line + "\n")

    def _write(self, stream: int, text: str) -> None:
        file = self._streams[stream]
        if file is None or not text:
            return
        self._unflushed = True
        if stream != self._last:  # each may hold back what it was given
            self._flush_one(self._streams[self._last])
            self._last = stream
        if self._has_one is None:
            self._has_one = is_one_place(self._streams[STDOUT], self._streams[STDERR])
        if stream == STDERR or self._has_one:
            self._in_line = not text.endswith("\n")
        try:
            file.write(text)
        except UnicodeEncodeError:  # an ASCII terminal: better escapes than nothing
            name = getattr(file, "encoding", None) or "ascii"
            file.write(text.encode(name, "backslashreplace").decode(name))
        except ValueError:
            if not getattr(file, "closed", False):
                raise
            self._streams[stream] = None  # closed by the caller: nobody is to see it

    def _flush(self) -> None:
        if not self._unflushed:
            return
        self._unflushed = False
        for file in self._streams.values():
            self._flush_one(file)

    @staticmethod
    def _flush_one(file: TextIO | None) -> None:
        flush = getattr(file, "flush", None)
        if flush is not None and not getattr(file, "closed", False):
            flush()


def _nobody_written(lease: bytes, number: int) -> None:
    """Tell nobody."""


def _nobody_failed(error: BaseException) -> None:
    """Tell nobody."""
