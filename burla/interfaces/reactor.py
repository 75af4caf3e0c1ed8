"""Drives many maps in one thread: each goes on when something has happened to its job.

The callers of `burla/shell/caller.py` say what they wait for, so none of them needs a thread of its
own. What they do between two events is short, but for inputs that are an iterator of the caller's
own, which may block: a map of those has a reactor to itself.
"""

import heapq
import os
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

from burla.own_frames import hide_own_frames
from burla.shell.caller import Driven, Raised, Values
from burla.shell.cells import context_of_cell
from burla.starting import Request, start
from burla.transport.threads import leave_signals

OPEN_MAX = 256  # jobs at once of one reactor; a cluster has a bound for each user
REST_S = 1.0  # its thread ends when there was nothing to do for so long


class Abandoned(Exception):
    """Nobody waits for a map any more."""


class Machine:
    """One map. All but the callables are for its reactor's thread only."""

    def __init__(
        self,
        request: Request,
        hand: Callable[[Iterable[Any]], None],
        end: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Start nothing.

        Args:
            request: what is wanted.
            hand: takes results of a generator; `go_on` is to follow when they are consumed.
            end: takes the list of results, or the error.
        """
        self.request, self.is_generator = request, request.options.generator
        self.hand, self.end = hand, end
        self.caller: Driven | None = None
        self.steps: Any = None
        self.has_begun = False
        self.is_over = False
        self.waits = False  # for an event
        self.has_handed = False  # something over, and waits for its consumer
        self.due = 0  # number of the time that it waits for; others are past
        self.is_queued = False  # the reactor will look at it
        self.context = context_of_cell()  # of the caller: that of `decimal` goes along


class Reactor:
    """One thread and its maps."""

    def __init__(self) -> None:
        """Start nothing."""
        self._queue: SimpleQueue[tuple[Callable[[Machine], None], Machine]] = SimpleQueue()
        self._lock = threading.Lock()  # held while it is decided whether the thread runs
        self._runs = False
        self._maps = 0  # not over yet
        self._open = 0  # of those, begun
        self._waiting: deque[Machine] = deque()  # for others to end
        self._due: list[tuple[float, int, Machine]] = []  # when somebody waits no longer
        self._numbers = count(1)

    # --- for any thread ---

    def begin(self, machine: Machine) -> None:
        """Begin a map."""
        with self._lock:
            self._maps += 1
            self._queue.put((self._begin, machine))
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="burla-async", daemon=True).start()

    def go_on(self, machine: Machine) -> None:
        """Take note that the results that were handed over are consumed."""
        self._queue.put((self._consumed, machine))

    def abandon(self, machine: Machine) -> None:
        """End a map that nobody waits for any more."""
        self._queue.put((self._abandon, machine))
        caller = machine.caller
        if caller is not None:
            caller.job.stop()  # now, should the thread be in an iterator that blocks

    # --- in the thread ---

    def _run(self) -> None:
        leave_signals()
        while True:
            timeout_s = REST_S
            if self._due:
                timeout_s = max(0.0, self._due[0][0] - time.monotonic())
            try:
                what, machine = self._queue.get(timeout=timeout_s)
            except Empty:
                self._ring()
                with self._lock:
                    if not self._maps and self._queue.empty():
                        self._runs = False
                        return
                continue
            what(machine)
            del what, machine
            self._ring()

    def _ring(self) -> None:
        """Let go on who waits no longer."""
        while self._due and self._due[0][0] <= time.monotonic():
            _, number, machine = heapq.heappop(self._due)
            if machine.due == number and machine.waits:
                self._step(machine, machine.steps.send, None)

    def _begin(self, machine: Machine) -> None:
        if machine.is_over:  # abandoned before its turn came
            self._begin_next()
            return
        if self._open >= OPEN_MAX:
            self._waiting.append(machine)
            return
        self._open += 1
        try:
            caller = machine.context.run(_start, machine.request)
            if caller is None:
                self._finish(machine, [], None)
                return
            machine.caller = caller
            caller.job.told = lambda: self._look_soon(machine)
        except BaseException as error:
            self._finish(machine, None, error)
            return
        machine.steps = caller.streaming() if machine.is_generator else caller.collecting()
        self._step(machine, machine.steps.send, None)

    def _look_soon(self, machine: Machine) -> None:
        if not machine.is_queued:
            machine.is_queued = True
            self._queue.put((self._look, machine))

    def _look(self, machine: Machine) -> None:
        """Give a map the events that there are."""
        machine.is_queued = False
        caller = machine.caller
        while machine.waits and caller is not None:
            event = caller.job.wait_event(0)
            if event is None:
                return
            self._step(machine, machine.steps.send, event)

    def _consumed(self, machine: Machine) -> None:
        if not machine.is_over and machine.steps is not None and machine.has_handed:
            self._step(machine, machine.steps.send, None)
            self._look(machine)

    def _abandon(self, machine: Machine) -> None:
        if machine.is_over:
            return
        if machine.steps is None:
            with suppress(ValueError):  # its turn comes next
                self._waiting.remove(machine)
            self._end(machine, None, Abandoned())
        else:
            self._step(machine, machine.steps.throw, Abandoned())

    def _step(self, machine: Machine, how: Callable[[Any], Any], what: Any) -> None:
        """Let a map go on, up to where it waits, hands something over, or ends."""
        machine.waits = machine.has_handed = False
        try:
            step = how(what)
            if isinstance(step, Values) and not machine.has_begun:  # the inputs are fed ahead
                machine.has_begun = True
                step = machine.steps.send(None)
            if isinstance(step, Values):
                machine.has_handed = True
                machine.hand(step.values)
                return
        except StopIteration as end:
            is_error = isinstance(end.value, Raised)
            self._finish(machine, *((None, end.value.error) if is_error else (end.value, None)))
        except BaseException as error:
            self._finish(machine, None, error)
        else:
            machine.waits, machine.due = True, 0
            if step is not None:
                machine.due = next(self._numbers)
                heapq.heappush(self._due, (time.monotonic() + step, machine.due, machine))
            self._look_soon(machine)

    def _finish(self, machine: Machine, results: Any, error: BaseException | None) -> None:
        self._end(machine, results, error)
        self._open -= 1
        self._begin_next()

    def _begin_next(self) -> None:
        if self._waiting:
            self._queue.put((self._begin, self._waiting.popleft()))

    def _end(self, machine: Machine, results: Any, error: BaseException | None) -> None:
        if error is not None:
            hide_own_frames(error)
        machine.is_over, machine.waits = True, False
        machine.steps = machine.caller = None
        machine.end(results, error)
        with self._lock:
            self._maps -= 1


def _start(request: Request) -> Driven | None:
    if request.options.resume is None:
        return start(request)
    from burla.resume.resumed import start_resumed  # few maps need it

    return start_resumed(request)


shared = Reactor()  # of all maps whose inputs are there


def _forget_in_child() -> None:
    global shared
    shared = Reactor()  # its thread is the parent's


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
