"""How a worker walks its spans in strides: run, pickle, write; never late, never twice.

An outcome is what the function returned when it returned, so what could change later is pickled
before the next call. A stride of several calls costs nothing per call but the loop itself. When one
of them is slow after all, the agent, which sees it in the slate, sends SIGURG: the handler, run by
the interpreter in the middle of the user's function, writes the outcomes that are there and gives
back the calls that were claimed but not begun. SIGURG is ignored by default, so a stray one harms
nobody (Go preempts its goroutines with it for the same reason), and SIGALRM and the timers stay the
user's.
"""

import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from types import TracebackType
from typing import Any, NamedTuple

from burla.values import calls
from burla.values.leaves import ATOMS
from burla.values.sharing import SharedResults

from .facts import Facts
from .folders import JobFolder, notice
from .outcomes import FACTS_NS, Outcomes, flush_output
from .pipes import CUT_SIGNAL, Kind
from .purity import is_closed
from .slate import WorkerSlate
from .spans import Span

STRIDE_NS = 1_000_000  # of calls in a stride: so much at most cannot be stolen
ALONE_NS = 50_000  # calls that take this long are strides of one; writing one costs a tenth of it
LEFT_SHARE = 4  # a stride is at most this part of a slot's share of what is left
SHORT_NS, SHORT_MAX = 20_000, 8  # but no shorter, up to so many calls: to steal takes longer
CLAIM_NS_MAX = 20_000_000  # what is left of a claim after this long is given back


class Loaded(NamedTuple):
    """A function that was loaded, and what it is called with and for."""

    call: Callable[[Any], Any]  # called with each input
    call_any: Callable[[Any], Any]  # likewise, where some may be a `burla.call`
    node: str = ""  # what this machine is called in errors
    results: SharedResults | None = None  # where big results are put down; None: they are sent
    folder: JobFolder | None = None  # the job's, if the calls work there
    timeout_s: float = 0.0  # that a call may take; 0: as long as it wants
    retried: tuple[type[BaseException], ...] = ()  # errors after which it is called again
    fragments: bool = False  # big results that are sent may flow


class Walker:
    """Runs spans, one after the other."""

    def __init__(self, sock: socket.socket, slate: WorkerSlate) -> None:
        self._slate = slate
        self._pid = os.getpid()
        self._call: Callable[[Any], Any] = _no_function
        self._call_any: Callable[[Any], Any] = _no_function
        self._is_closed = False
        self._facts = Facts(slate)
        self._outcomes = Outcomes(sock, self._facts)
        self._folder: JobFolder | None = None  # that is to be looked at; None: not (any more)
        self._several = False  # the last result was immutable
        self._call_ns = 0  # learnt; kept from span to span
        self._claimed = 0  # calls up to here are ours
        self._claim_ns = 0  # spent on them so far
        self._stop: int | None = None  # nothing from here on is run of this span
        self._timeout_s = 0.0
        self._expired: BaseException | None = None  # raised in the running call: its time is up
        self._is_noted = True  # all that is not written is in the slate, too
        # What runs now: input `len(_out)` of `_inputs` is index `_begin + len(_out)`; `_sent` of
        # _out are written.
        self._calling = False
        self._begin = 0
        self._inputs: list[Any] | Iterator[int] = []
        self._out: list[Any] = []
        self._sent = 0

    def load(self, loaded: Loaded) -> None:
        """Turn to another function."""
        self._call, self._call_any, self._folder = loaded.call, loaded.call_any, loaded.folder
        self._is_closed = is_closed(loaded.call)
        self._outcomes.node, self._outcomes.results = loaded.node, loaded.results
        self._outcomes.fragments = loaded.fragments
        self._outcomes.retried = loaded.retried
        self._timeout_s = loaded.timeout_s
        self._several = False
        self._call_ns = 0

    def arm(self) -> None:
        """Prepare this process, just forked, for cuts and for functions that fork."""
        self._pid = os.getpid()
        signal.signal(CUT_SIGNAL, self._on_cut)
        os.register_at_fork(before=flush_output, after_in_child=self._end_loop)

    def walk(self, span: Span) -> None:
        """Run what is left of a span and write all its outcomes."""
        self._slate.enter(span.cell)
        self._outcomes.cell = span.cell
        self._stop = None
        at = self._claimed = span.lo
        self._slate.begin_notes(at)
        self._is_noted = True
        while True:
            if at >= self._claimed:
                self._claimed = self._claim(span, at)
                if at >= self._claimed:
                    break
            at = self._run(span, at)
            span.drop(at)
            rest = self._claimed - at
            if rest and (self._stop is not None or self._claim_ns > CLAIM_NS_MAX):
                self._stop = self._claimed = at
                rest = 0
            if rest <= 0 and (self._stop is not None or at >= self._slate.hi):
                break
            if (
                span.careful  # the next call may be the one that kills
                or self._call_ns >= ALONE_NS
                or self._outcomes.is_much()
                or not self._is_noted
            ):
                self._outcomes.write()
                self._slate.begin_notes(at)
                self._is_noted = True
        if self._folder is not None and (file := self._folder.first_file()) is not None:
            self._outcomes.notice(notice(file, self._outcomes.node))
            self._folder = None
        self._inputs, self._out = [], []  # they may be big, and their memory is wanted again
        self._outcomes.end(at)
        self._slate.begin(0, 0)  # a death from here on is nobody's

    def _claim(self, span: Span, at: int) -> int:
        if self._stop is not None:
            return at
        count = 1
        self._claim_ns = 0
        if not span.careful and 0 < self._call_ns < ALONE_NS:
            left = span.left + span.hi - at
            short = min(SHORT_MAX, SHORT_NS // self._call_ns)
            share = max(short, left // (LEFT_SHARE * span.slots))
            count = min(STRIDE_NS // self._call_ns, share) or 1
        return self._slate.claim(at, count)

    # --- one stride ---

    def _run(self, span: Span, at: int) -> int:
        """Run one stride of what is claimed from `at` on; return where the next one begins."""
        end = self._claimed if self._several else at + 1
        self._slate.begin(at, end)
        if self._call_ns >= FACTS_NS:
            self._facts.begin()
        started = perf_counter_ns()
        try:
            inputs: list[Any] | Iterator[int]
            if end - at > 1:
                inputs = span.numbers(at, end) or span.inputs(at, end)
            else:
                inputs = [span.input(at)]
        except BaseException as problem:  # of unpickling, which runs the user's code as well
            self._leave_if_forked(problem)
            self._outcomes.add_error(at, problem, 0, span)
            self._is_noted = not self._timeout_s
            return at + 1
        if self._timeout_s:
            error, odd = self._call_within(at, inputs)
        else:
            plain = self._is_closed and end - at > 1 and span.is_plain(at, end)
            error, odd = self._call_all(at, inputs, plain)
        took = perf_counter_ns() - started
        self._leave_if_forked(error)
        begin, done = at + self._sent, at + len(self._out)
        if done > begin:
            self._outcomes.keep(begin, self._out[self._sent :] if self._sent else self._out, took)
            took = 0
        at = done
        if error is not None:
            self._outcomes.add_error(done, error, took, span)
            at += 1
            if isinstance(
                error, KeyboardInterrupt
            ):  # as likely as not the lease ends: begin no more
                self._stop = at
        elif odd is not _NONE:
            self._note_result(done, odd, took, span)
            at += 1
        self._several = at == done
        spent = perf_counter_ns() - started  # with the pickling: big results make small strides
        self._outcomes.spent_ns += spent
        self._claim_ns += spent
        self._learn(spent // max(1, at - begin))
        return at

    def _call_all(
        self, at: int, inputs: list[Any] | Iterator[int], plain: bool
    ) -> tuple[BaseException | None, Any]:
        """Call the function on all inputs, up to the first result that is mutable, or error.

        With `plain` none of the results can change any more, whatever they are.

        Returns:
            The error or None, and the mutable result or _NONE.
        """
        call, atoms = self._call_any if calls.met() and not plain else self._call, ATOMS
        out: list[Any] = []
        append = out.append
        self._begin, self._inputs, self._out, self._sent = at, inputs, out, 0
        self._calling = True
        try:
            if plain:
                out.extend(map(call, inputs))
                return None, _NONE
            for x in inputs:
                result = call(x)
                if type(result) not in atoms and not (
                    type(result) is tuple and atoms.issuperset(map(type, result))
                ):
                    return None, result
                append(result)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the user's, too
            return error, _NONE
        finally:
            self._calling = False
        return None, _NONE

    def _call_within(
        self, at: int, inputs: list[Any] | Iterator[int]
    ) -> tuple[BaseException | None, Any]:
        """Do as `_call_all` does, where each call has a time limit.

        Whose time is up may have to be killed. So each outcome is noted before the next call
        begins: what is done is done, and which call it is that lasts is known without asking.
        """
        self._expired = None
        try:
            error, odd = self._call_each(at, inputs)
        except BaseException as late:  # raised by `_on_cut` while the call ended
            if late is not self._expired:
                raise
            error, odd = late, _NONE
        if error is not None or odd is not _NONE:
            self._is_noted = False
        if self._expired is None:
            return error, odd
        _leave_out_last(self._expired)
        if error is self._expired:
            return error, odd
        timed_out = self._timed_out(at + len(self._out))
        timed_out.__cause__ = error  # what it made of it, if that was an error
        return timed_out, _NONE

    def _call_each(
        self, at: int, inputs: list[Any] | Iterator[int]
    ) -> tuple[BaseException | None, Any]:
        call = self._call_any if calls.met() else self._call
        atoms, note, dumps = ATOMS, self._slate.note, pickle.dumps
        out: list[Any] = []
        append = out.append
        self._begin, self._inputs, self._out, self._sent = at, inputs, out, 0
        self._calling = True
        try:
            if self._slate.has_expired(at):  # while its input was unpickled
                self._expired = self._timed_out(at)
                return self._expired, _NONE
            for x in inputs:
                result = call(x)
                if self._expired is not None:
                    return self._expired, _NONE
                if type(result) not in atoms and not (
                    type(result) is tuple and atoms.issuperset(map(type, result))
                ):
                    return None, result
                append(result)
                if not note(at, dumps(result, 5)):
                    self._is_noted = False
                    break  # it is written before the next one begins
                at += 1
        except BaseException as error:
            return error, _NONE
        finally:
            self._calling = False
        return None, _NONE

    def _timed_out(self, index: int) -> BaseException:
        from burla.errors import CallTimeout  # which few jobs need

        return CallTimeout(index, self._timeout_s)

    def _learn(self, call_ns: int) -> None:
        """Believe a slower time at once, a faster one by halves."""
        call_ns = max(1, call_ns)
        self._call_ns = call_ns if call_ns > self._call_ns else (self._call_ns + call_ns) // 2

    def _note_result(self, index: int, result: Any, took_ns: int, span: Span) -> None:
        try:
            frames = self._outcomes.frames_of(result)
        except BaseException as error:  # its own __reduce__ may raise anything
            self._leave_if_forked(error)
            self._outcomes.add_error(index, error, took_ns, span)
            return
        self._leave_if_forked(None)
        self._outcomes.add(Kind.RESULT, index, index + 1, took_ns, frames)

    # --- cuts and forks ---

    def _on_cut(self, signum: int, frame: object) -> None:
        """Write what is done and give back what was not begun; runs inside the user's function.

        The main thread is in that function, so nobody else is writing, and `_outcomes` is whole.
        """
        if not self._calling or os.getpid() != self._pid:
            return
        done = len(self._out)
        running = self._begin + done
        self._end_loop()
        results = self._out[self._sent :]
        if results:
            self._outcomes.keep(running - len(results), results, 0)
            self._sent = done
        if self._stop is None and running + 1 < self._claimed:
            self._claimed = self._stop = running + 1
            self._outcomes.stop(running, self._stop)
        self._outcomes.write_amid_call()
        if self._timeout_s and self._expired is None and self._slate.has_expired(running):
            self._expired = self._timed_out(running)
            raise self._expired

    def _end_loop(self) -> None:
        """Let no other call begin: they are given back, or this is a child that was forked."""
        if isinstance(self._inputs, list):
            del self._inputs[len(self._out) + 1 :]
        else:
            numbers: Any = self._inputs  # typeshed does not know how they are unpickled
            numbers.__setstate__(sys.maxsize)  # as one that is at its end

    def _leave_if_forked(self, error: BaseException | None) -> None:
        if os.getpid() == self._pid:
            return
        status = 0
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = error.code or 0
        elif error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
        flush_output()
        os._exit(status & 0xFF)


def _no_function(argument: Any) -> Any:
    raise AssertionError("a span came before a function")


def _leave_out_last(error: BaseException) -> None:
    """Take the innermost frame out of a traceback, which is that of our signal handler."""
    kept = None
    for entry in reversed(list(_entries(error.__traceback__))[:-1]):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


class _None:
    """The type of _NONE, which no function returns."""


_NONE = _None()
