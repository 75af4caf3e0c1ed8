"""The outcomes of a worker on their way to the agent: pickled, gathered, written. No policy.

What could change later is pickled at once. Immutable results of strides that follow each other wait
for one pickle of all.
"""

import ctypes
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from burla.limits import FRAGMENT_BYTES
from burla.values import payloads
from burla.values.explain import text_of, type_name
from burla.values.frames import Flow
from burla.values.sharing import SharedResults

from .facts import Facts
from .folders import explain
from .pipes import (
    Flag,
    Frame,
    Kind,
    Message,
    pack,
    send_all,
)
from .spans import Span

GATHER_NS = 4_000_000  # of short calls: so long wait their outcomes; the agent gathers longer
GATHER_RESULTS = 1 << 16  # in one pickle
FAULT_CHARS_MAX = 500  # of an error's text, for the records of the cluster
FACTS_NS = 4_000_000  # of a call that took so long it is told more: that takes some microseconds
UNSENT_BYTES_MAX = 256 << 10  # outcomes gathered within one claim; then they are written

_fflush = ctypes.CDLL(None).fflush


class Outcomes:
    """What is gathered of one span, in the order of its inputs."""

    def __init__(self, sock: socket.socket, facts: Facts) -> None:
        """Write to `sock`; what is known of calls that last is in `facts`."""
        self._facts = facts
        self.node = ""  # what this machine is called in errors
        self.results: SharedResults | None = None  # where big ones are put; None: they are sent
        self.fragments = False  # big ones that are sent may flow
        self.retried: tuple[type[BaseException], ...] = ()  # errors after which it is called again
        self.cell = 0  # of the span
        self.spent_ns = 0  # on the calls whose outcomes are gathered
        self._sock = sock
        self._kept: list[Any] = []  # immutable results of the last strides, not pickled yet
        self._kept_lo = 0  # index of the first
        self._kept_ns = 0  # what their calls took
        self._unsent: list[Message] = []  # what comes before them
        self._unsent_bytes = 0

    def is_much(self) -> bool:
        """Return whether what is gathered should wait no longer."""
        return (
            self.spent_ns > GATHER_NS
            or self._unsent_bytes > UNSENT_BYTES_MAX
            or len(self._kept) > GATHER_RESULTS
        )

    # --- gathering ---

    def keep(self, lo: int, results: list[Any], took_ns: int) -> None:
        """Gather immutable results, which follow those that were kept before."""
        if self._kept:
            self._kept += results
        else:
            self._kept, self._kept_lo, self._kept_ns = results, lo, 0
        self._kept_ns += took_ns

    def add(
        self,
        kind: Kind,
        lo: int,
        hi: int,
        took_ns: int,
        frames: Sequence[bytes],
        flags: int = 0,
    ) -> None:
        """Gather an outcome that is pickled."""
        self._add_kept()
        flags |= Flag.FLOWS if isinstance(frames, Flow) else 0
        self._unsent.append(Message(kind, flags, self.cell, lo, hi, 0, took_ns, frames))
        self._unsent_bytes += sum(map(len, frames))

    def add_error(self, index: int, error: BaseException, took_ns: int, span: Span) -> None:
        """Gather the exception of a call."""
        try:
            shown = payloads.short_repr(span.input(index))
        except BaseException:  # the input is what is wrong
            shown = None
        explain(error, self.node)
        frames = payloads.dump_error(error, self.node, index, shown)
        told = f"{type_name(error)}\n{text_of(error)[:FAULT_CHARS_MAX]}"
        flags, frames = Flag.TOLD, [*frames, told.encode("utf-8", "replace")]
        if self.retried and self._is_retried(error):
            flags |= Flag.RETRY
        self.add(Kind.ERROR, index, index + 1, took_ns, frames, flags)

    def _is_retried(self, error: BaseException) -> bool:
        """Return whether the call is called again after this, as what the caller would see."""
        from burla import errors  # which few jobs need

        seen: type[BaseException] = type(error)
        match error:
            case SystemExit() | KeyboardInterrupt() | GeneratorExit():
                seen = errors.FunctionExited
            case payloads.ResultNotPicklableError() | payloads.TooLargeError():
                seen = errors.ResultNotSendable
            case payloads.NotLoadableError():
                seen = errors.InputNotLoadable
            case _:
                pass
        return issubclass(seen, self.retried) or isinstance(error, self.retried)

    def frames_of(self, result: Any) -> Sequence[bytes]:
        """Return the pickle of one result.

        Raises:
            TooLargeError: it cannot be sent.
            BaseException: whatever the user's `__reduce__` raises.
        """
        return self._frames_of(payloads.take_apart_result(result))

    def stop(self, at: int, stop: int) -> None:
        """Say, once at `at`, that nothing of the span is run from `stop` on."""
        self._add_kept()
        self._unsent.append(Message(Kind.NOTHING, Flag.STOP, self.cell, at, at, stop))

    def _add_kept(self) -> None:
        if self._kept:
            results, self._kept = self._kept, []
            self._add_results(self._kept_lo, results, self._kept_ns)

    def _add_results(self, lo: int, results: list[Any], took_ns: int) -> None:
        count = len(results)
        try:
            frames = self._frames_of(payloads.take_apart_results(results))
        except payloads.TooLargeError as error:
            if count > 1:
                self._add_results(lo, results[: count // 2], took_ns)
                self._add_results(lo + count // 2, results[count // 2 :], 0)
            else:
                failed = payloads.dump_error(error, self.node, lo)
                self.add(Kind.ERROR, lo, lo + 1, took_ns, failed)
        else:
            self.add(Kind.RESULTS, lo, lo + count, took_ns, frames)

    def _frames_of(self, pieces: payloads.Pieces) -> Sequence[bytes]:
        return self._cut(pieces) if self.results is None else self.results.put(pieces, self._cut)

    def _cut(self, pieces: payloads.Pieces) -> Sequence[bytes]:
        if self.fragments and pieces.size > FRAGMENT_BYTES:
            return pieces.flow()  # it is written before anything else runs: see Walker.walk
        return pieces.cut()

    # --- writing ---

    def notice(self, line: bytes) -> None:
        """Write a line for the caller, ahead of what is gathered."""
        send_all(self._sock, pack(Message(Kind.NOTICE, frames=[line])))

    def end(self, at: int) -> None:
        """Write what is gathered and that the span is over at `at`."""
        self._add_kept()
        if self._unsent:
            last = self._unsent[-1]
            self._unsent[-1] = last._replace(flags=last.flags | Flag.END, a=at)
        else:
            self._unsent.append(Message(Kind.NOTHING, Flag.END, self.cell, at, at, at))
        self.write()

    def write(self) -> None:
        """Write what is gathered; the output of its calls goes ahead of it."""
        flush_output()
        self._add_facts()
        send_all(self._sock, self._take())

    def _add_facts(self) -> None:
        """Add what is known of the call that has just ended, if it took long, or failed."""
        self._add_kept()
        if not self._unsent:
            return
        kind, flags, _, lo, hi, _, took_ns, frames, _, _ = last = self._unsent[-1]
        lasted = took_ns >= FACTS_NS or kind == Kind.ERROR
        if lasted and hi - lo == 1 and frames and not flags & Flag.FLOWS:
            frames = [*frames, self._facts.packed()]
            self._unsent[-1] = last._replace(flags=flags | Flag.FACTS, frames=frames)

    def write_amid_call(self) -> None:
        """Write what is gathered, if anything is, while the user's function runs."""
        if self._unsent or self._kept:
            buffers = self._take()
            with suppress(Exception):  # it may be in the middle of a print, or of our end
                sys.stdout.flush()
                sys.stderr.flush()
            with suppress(OSError):  # the agent is gone, and so are we soon
                send_all(self._sock, buffers)

    def _take(self) -> list[Frame]:
        self._add_kept()
        unsent, self._unsent, self._unsent_bytes, self.spent_ns = self._unsent, [], 0, 0
        buffers: list[Frame] = []
        for message in unsent:
            buffers += pack(message)
        return buffers


def flush_output() -> None:
    """Write out what Python and C hold back of the output."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed or replaced by the function: its own business
            continue
    _fflush(None)
