"""What stands behind an executor or a pool: its calls, on their way to a job that is open for them.

There is no job, no thread and no node while there is nothing to do. The first call opens a job; it
ends when there was none for a while. Calls that need modules of the caller's, or packages, which a
job does not have open one beside it.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Any, TypedDict
from weakref import WeakSet

from msgspec.structs import replace

from burla.arguments import Shape, check_arguments
from burla.config import cluster_address
from burla.core.progress import Progress
from burla.monkey_patches import refuse_green_threads
from burla.nested import is_nested
from burla.options import read_image, read_options
from burla.own_frames import hide_own_frames
from burla.parallel_map import Files, Packages, remote_parallel_map
from burla.retry import Retry
from burla.shipping.modules import found_modules, new_sent
from burla.shipping.packages import packages_needed, packages_of_settings, read_packages
from burla.shipping.shipped_files import find_files
from burla.starting import Begun, Request, begin
from burla.values.calls import call
from burla.values.leading import packages_ahead
from burla.values.many import Many
from burla.values.payloads import take_apart_function
from burla.variables import read_env

from .codes import Call, Code, Codes, modules_of, pack
from .lane import Entry, Lane, Sink
from .parts import first_buffers

REMOTE_SLOTS = 256  # of a cluster, for those who ask before there is a job: so many are made ready
CALLS_READ = 64  # of the first job, for what they begin with importing
QUEUE_AT_ONCE = 1024  # calls of one map, that the lane then hears of
ANY = Shape(unpack=None, check=None)  # tuples are unpacked, what is none is passed whole


Key = tuple[object, ...]  # of a lane: what goes with its job


class CallOptions(TypedDict, total=False):
    """What is wanted of each call, as `remote_parallel_map` has it."""

    func_cpu: int
    func_ram: float | None
    func_gpu: int
    grow: bool | None
    env: Mapping[str, str | None] | Iterable[str] | None
    files: Files | None
    packages: Packages | None
    timeout: float | None
    retries: int | Retry | None
    image: str | None
    spinner: bool
    progress: Callable[[Progress], object] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What is wanted of all calls."""

    most: int | None  # calls at the same time
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    options: CallOptions

    def many(self, shared: Sequence[Any] = ()) -> Many:
        """Return the function of each job; `shared`: buffers that go with it."""
        return Many(self.initializer, self.initargs, shared)

    def leading(
        self, queue: Iterable[Entry], others: Iterable[Callable[..., Any]]
    ) -> Sequence[tuple[str, tuple[str, ...]]]:
        """Return what calls begin with importing, unless something is to be called before them."""
        if self.initializer is not None:
            return []
        codes = {id(call.code): call.code for *_, call in islice(queue, CALLS_READ)}
        return packages_ahead([*(code.function for code in codes.values()), *others])

    def request(self, many: Many) -> Request:
        """Return what is asked for with a job.

        Raises:
            TypeError: a setting is of a wrong kind, or unknown; the text names it.
            ValueError: one has an impossible value.
        """
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError("initializer must be a callable")
        given: Any = self.options
        if unknown := sorted(given.keys() - CallOptions.__annotations__.keys()):
            raise TypeError(f"{unknown[0]!r} is no option of calls: there are {KNOWN}")
        cpu, ram, grow = given.get("func_cpu", 1), given.get("func_ram"), given.get("grow")
        spinner = given.get("spinner", False)
        check_arguments(many, (), cpu, ram, self.most, spinner, None, grow)
        of_calls = {name: given[name] for name in OF_CALLS if name in given}
        going_on = read_options(return_exceptions=True, **of_calls)
        chosen, shipped = read_env(given.get("env")), find_files(given.get("files"))
        needed = read_packages(given.get("packages"))
        return Request(
            *(many, (), ANY, cpu, ram, self.most),
            *(spinner, grow, chosen, shipped, going_on, needed),
            image=read_image(given.get("image"), going_on.func_gpu),
        )

    def of_map(self) -> dict[str, Any]:
        """Return the arguments of a `remote_parallel_map` under these settings."""
        return {"spinner": False, "max_parallelism": self.most, **self.options}


OF_CALLS = ("func_gpu", "timeout", "retries", "progress")
KNOWN = ", ".join(CallOptions.__annotations__)


class Engine:
    """The calls of one executor."""

    def __init__(self, settings: Settings) -> None:
        """Start nothing."""
        self._settings, self._many = settings, settings.many()
        self._lock = threading.RLock()  # pickling an argument may submit something
        self._codes = Codes()
        self._lanes: dict[Key, Lane] = {}
        self._ending: WeakSet[Lane] = WeakSet()  # they get no more calls
        self._travelling: dict[CodeType, None] = {}  # codes whose imports go along
        self._modules: frozenset[str] = frozenset()  # that calls have referred to
        self._key: Key = ()  # of the calls of now
        self._loaded = -1  # how many modules were, when that was found
        self._is_remote: bool | None = None  # not known yet
        self._has_begun = False  # a job
        self._pid = os.getpid()
        self.shares = False  # the big buffers of the first calls of a job go with the job itself
        self.first: Sequence[Callable[..., Any]] = ()  # what the first calls call in turn
        self.closed = ""  # why it takes no calls any more
        self.broken: BaseException | None = None
        _engines.add(self)

    def submit(
        self,
        sink: Sink,
        token: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Take one call; what cannot be sent fails.

        Raises:
            RuntimeError: it takes no calls any more.
        """
        if is_nested():
            self.check()
            self._call_here(sink, token, function, args, kwargs)
            return
        self._check_process()
        with self._lock:
            self.check()
            try:
                packed = pack(self._codes.of(function), args, kwargs)
            except Exception as error:
                problem: list[Exception] = [error]
            else:
                self._lane_of(packed.code, (packed,)).queue.append((sink, token, packed))
                self._wake()
                return
        hide_own_frames(problem[0])  # or it keeps what it could not send, in a ring
        sink.fail(token, problem.pop())

    def submit_all(
        self, sink: Sink, function: Callable[..., Any], inputs: Iterable[tuple[Any, ...]], at: int
    ) -> int:
        """Take one call for each of these arguments, with tokens from `at` on; return how many.

        Raises:
            RuntimeError: it takes no calls any more.
            Exception: what `inputs` raises.
        """
        if is_nested():
            self.check()
            count = 0
            for count, args in enumerate(inputs, 1):
                self._call_here(sink, at + count - 1, function, args, {})
            return count
        self._check_process()
        with self._lock:
            self.check()
            try:
                code = self._codes.of(function)
            except Exception as error:
                hide_own_frames(error)
                return _fail_all(sink, inputs, at, error)
            lane = self._lane_of(code)
        start = at
        entries: list[Entry] = []
        try:
            for args in inputs:
                try:
                    entries.append((sink, at, pack(code, args, {})))
                except Exception as error:
                    hide_own_frames(error)
                    sink.fail(at, error)
                at += 1
                if len(entries) == QUEUE_AT_ONCE:
                    lane = self._put(code, lane, entries)
                    entries = []
        finally:  # those before what `inputs` raised are called
            self._put(code, lane, entries)
        return at - start

    def _put(self, code: Code, lane: Lane, entries: list[Entry]) -> Lane:
        with self._lock:
            # it has ended meanwhile, or does not have what these need
            if lane not in self._lanes.values() or self._add_modules(call for *_, call in entries):
                self.check()
                lane = self._lane_of(code)
            lane.queue.extend(entries)
            self._wake()
        return lane

    def _call_here(
        self,
        sink: Sink,
        token: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Make a call in this worker, as maps in calls do: it waits for nobody."""
        if not sink.begin(token):
            return
        try:
            wanted: Any = self._settings.of_map()
            value = remote_parallel_map(function, [call(*args, **kwargs)], **wanted)[0]
        except Exception as error:
            sink.fail(token, error)
        else:
            sink.succeed(token, value)

    def check(self) -> None:
        """Raise if it takes no calls any more.

        Raises:
            RuntimeError: it was closed, or broke, or this is a forked child.
        """
        self._check_process()
        if self.closed:
            raise RuntimeError(self.closed)
        if self.broken is not None:
            raise BrokenExecutor(
                f"it takes no calls since an error ended it: {self.broken}; make a new one"
            ) from self.broken

    def _check_process(self) -> None:
        """Raise in a forked child: who held the lock at the fork never releases it there."""
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, from which process {os.getpid()}"
                " was forked: make one here"
            )

    # --- lanes ---

    def _lane_of(self, code: Code, calls: Iterable[Call] = ()) -> Lane:
        """Return where its calls go. `_lock` is held."""
        if self._is_remote is None:
            self._is_remote = cluster_address() is not None
        self._add_modules(calls)
        key = self._key_of(code)
        lane = self._lanes.get(key)
        if lane is None:
            refuse_green_threads()
            lane = self._lanes[key] = Lane(self._begin, self._left)
        return lane

    def _wake(self) -> None:
        """Let lanes look into their queues. `_lock` is held."""
        for key, lane in [*self._lanes.items()]:
            if not lane.queue:
                continue
            if lane.is_started:
                lane.wake()
                continue
            try:
                lane.start()
            except RuntimeError:  # the interpreter is about to end
                del self._lanes[key]
                raise

    def _add_modules(self, calls: Iterable[Call]) -> bool:
        """Take note of what calls refer to; return whether that is more than all before did."""
        if not self._is_remote:
            return False
        found = self._modules.union(*map(modules_of, calls))
        if len(found) == len(self._modules):
            return False
        self._modules, self._loaded = found, -1
        return True

    def _key_of(self, code: Code) -> Key:
        """Return what tells the modules and packages that have to be there from others."""
        if not self._is_remote:  # its workers import what this process can
            return ()
        codes = code.sent.codes
        if len(sys.modules) != self._loaded or not all(one in self._travelling for one in codes):
            self._travelling.update(dict.fromkeys(codes))
            sent = new_sent()
            sent.codes += self._travelling
            found = found_modules(self._many, (), sent)
            wanted = read_packages(self._settings.options.get("packages"))
            wanted = packages_of_settings() if wanted is None else wanted
            needs = packages_needed(wanted, found.roots | self._modules, found.imported, (), ())
            carried = tuple((one.name, one.version) for one in needs.carried)
            name = "" if found.travels is None else found.travels.name
            self._key = (name, needs.packed, carried)
            self._loaded = len(sys.modules)
        return self._key

    def _begin(self, lane: Lane) -> Begun:
        sent = new_sent()
        with self._lock:
            sent.codes += self._travelling
            modules = self._modules
            lane.shared = first_buffers(lane.queue) if self.shares and self._is_remote else []
            if not self._has_begun:  # not anew for each job: workers go on with jobs alike
                self._has_begun = True
                self._many.leading = self._settings.leading(lane.queue, self.first)
        many = self._settings.many(lane.shared) if lane.shared else self._many
        many.leading = self._many.leading
        request = replace(self._settings.request(many), names=modules)
        pieces = take_apart_function(many, sent=sent)
        return begin(request, sent, pieces, is_lazy=True)

    def _left(self, lane: Lane, must: bool) -> bool:
        """Take note that a lane has nothing to do, or is broken; return whether it ends."""
        with self._lock:
            if lane.queue and not must:
                return False
            for key in [key for key, one in self._lanes.items() if one is lane]:
                del self._lanes[key]
            self._ending.add(lane)
            if lane.broken is not None and self.broken is None:
                self.broken = lane.broken
            return True

    # --- ends ---

    def close(self, why: str, *, cancel: bool = False) -> None:
        """Take no calls any more.

        Args:
            why: what to say to who comes later.
            cancel: those that are not sent are not called.
        """
        if self._pid != os.getpid():
            return
        cancelled: list[Entry] = []
        with self._lock:
            self.closed = self.closed or why
            for lane in self._lanes.values():
                if cancel:
                    while len(lane.queue) > (not lane.has_sent):  # the first one counts as begun
                        cancelled.append(lane.queue.pop())
                lane.closing = True
                lane.wake()
        for sink, token, _ in reversed(cancelled):
            sink.cancel(token)

    def stop(self, why: str) -> None:
        """Take no calls any more and stop those that run."""
        self.close(why, cancel=True)
        if self._pid != os.getpid():
            return
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.stop()

    def join(self) -> None:
        """Wait until all calls have their outcomes and all threads have ended."""
        if self._pid != os.getpid():
            return
        with self._lock:
            lanes = (*self._lanes.values(), *self._ending)
            threads = [lane.thread for lane in lanes if lane.is_started]
        for thread in threads:
            if thread is not threading.current_thread():  # a callback may end its executor
                thread.join()

    def slots(self) -> int:
        """Return how many calls may run at once, as far as it is known without asking a cluster."""
        return self._settings.most or slots_there()

    def is_idle(self) -> bool:
        """Return whether no call waits or runs."""
        if self._pid != os.getpid():
            return True
        with self._lock:
            return not any(lane.is_busy() for lane in self._lanes.values())


def slots_there() -> int:
    """Return how many calls a cluster is taken to run at once."""
    if cluster_address() is not None or sys.platform != "linux":
        return REMOTE_SLOTS
    return len(os.sched_getaffinity(0))


def _fail_all(sink: Sink, inputs: Iterable[object], at: int, error: Exception) -> int:
    count = 0
    for count, _ in enumerate(inputs, 1):
        sink.fail(at + count - 1, error)
    return count


# --- the end of the process ---

INTERRUPTED = "the calls were interrupted"

_engines: WeakSet[Engine] = WeakSet()


def _end_all() -> None:
    """Let all calls end before the process does, as executors of Python do."""
    engines = list(_engines)
    for engine in engines:
        engine.close("cannot schedule new futures after interpreter shutdown")
    try:
        for engine in engines:
            engine.join()
    except KeyboardInterrupt:
        for engine in engines:
            engine.stop(INTERRUPTED)
        raise


# Before threads are joined and other ends come: private, but what Python's own executors use.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]
