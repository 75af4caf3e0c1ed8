"""What happens inside a forked worker: load the function, walk spans, leave.

One thread, blocking reads and writes, no event loop. Nothing here may run at import but
definitions: the zygote imports it once for all workers. It never imports zmq or asyncio.
"""

import errno
import gc
import mmap
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import msgpack

from burla.nodelet.isolation.linux import set_dumpable
from burla.values import payloads
from burla.values.calls import bind_any, unguard
from burla.values.free_results import FreeResults
from burla.values.leading import import_ahead
from burla.values.shared_memory import kept, map_part
from burla.values.sharing import SharedResults, directory_of

from . import control, forks, fresh, limits, preloaded
from .blobs import JobBlobs
from .control import LoadSettings
from .folders import VARIABLE, enter, own_modules_place
from .outcomes import flush_output
from .pipes import (
    HEADER_BYTES,
    LEAF_RECORD,
    ORDER_BYTES_MAX,
    ORDER_FRAMES_MAX,
    READ_BYTES,
    Kind,
    LeafMemory,
    Message,
    Parser,
    pack,
    pack_span,
    send_all,
    unpack_header,
)
from .shipped_files import put_down
from .slate import PAGE_BYTES, AgentSlate, Memory, WorkerSlate, register
from .spans import Leaf, Span
from .strides import Loaded, Walker
from .surroundings import Applied

EXIT_OK = 0
# A blank that waits longer rehearses, which costs as much as to fork it: sooner it would be in the
# way of small jobs, and of the start of this node and of others on this machine.
IDLE_S = 2.0
EXIT_BROKEN = 70  # the agent is gone, or our own code failed
EXIT_INTERRUPTED = 130
CLOSED = (errno.EBADF, errno.ENOTSOCK)  # the function closed our socket
KILLED_S = 10.0  # until the agent has killed a worker that it has lost the connection to
Pages = Callable[[int], memoryview]  # number -> words of a page of the slate

KEPT_BYTES_MAX = 128 << 20  # inputs that stay mapped, of which the caller has the memory
NO_INDEX = -1  # of a failure that belongs to no input


class Worker:
    """One worker process, from its fork to its end."""

    def __init__(
        self, sock: socket.socket, pages: Pages, page: int, started_ns: int | None = None
    ) -> None:
        self._started_ns = started_ns  # when its own Python was; None: it was forked
        self._sock = sock
        self._pages = pages
        # not a bytearray, which is written to all over when it is made
        buffer = mmap.mmap(-1, READ_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._parser = Parser(buffer, ORDER_BYTES_MAX, ORDER_FRAMES_MAX)
        self._parser.carry()
        self._walker = Walker(sock, WorkerSlate(pages(page)))
        self._leaves = LeafMemory()
        self._loaded: Loaded | None = None
        self._modules: frozenset[str] = frozenset()  # what was imported before the first function
        self._has_one_output = False
        self._applied = Applied()
        self._preloaded: preloaded.Preloaded | None = None  # that it has, without a function yet
        self._free_results = FreeResults()

    def serve(self) -> NoReturn:
        """Do what the agent says, and leave."""
        status = EXIT_BROKEN
        try:
            os.environ["BURLA_WORKER_PID"] = str(os.getpid())
            register()
            self._walker.arm()
            self._say(Message(Kind.HELLO, a=os.getpid()))
            if self._loaded is None and not select.select([self._sock], [], [], IDLE_S)[0]:
                rehearse()
            messages = self._parser.read(self._sock)
            with suppress(OSError):  # not Linux
                set_dumpable(True)  # as usual; until now a worker of another lease might look in
            while messages is not None:
                for message in messages:
                    self._obey(message)
                messages = self._parser.read(self._sock)
            status = EXIT_OK
        except KeyboardInterrupt:
            status = EXIT_INTERRUPTED
        except OSError as error:
            if error.errno in CLOSED:
                time.sleep(KILLED_S)  # the agent has seen it, kills us and says why
            elif error.errno not in (errno.EPIPE, errno.ECONNRESET):  # the agent is gone
                sys.excepthook(type(error), error, error.__traceback__)
        except BaseException as error:  # ours, or one that the function's signals threw at us
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            flush_output()
            os._exit(status)

    def _say(self, message: Message) -> None:
        send_all(self._sock, pack(message))

    def _obey(self, message: Message) -> None:
        match message.kind:
            case Kind.SPAN:
                self._walker.walk(self._span_of(message))
            case Kind.LOAD:
                self._load(message)
            case Kind.TEMPLATE:
                self._serve_as_template()
            case Kind.PRELOAD:
                self._preload(message)
            case Kind.EXIT:
                flush_output()
                os._exit(EXIT_OK)
            case _:
                raise AssertionError(message)

    # --- the function ---

    def _load(self, message: Message) -> None:
        started = time.perf_counter_ns()
        settings = control.decode(bytes(message.frames[0]))
        assert isinstance(settings, LoadSettings), settings
        self._blobs = JobBlobs(settings.blobs, self._parser.descriptors)
        self._leaves = LeafMemory()
        is_first = self._loaded is None
        if is_first:
            self._modules = frozenset(sys.modules)
            payloads.compile_once()
        else:
            payloads.forget_own_modules(self._modules)
        try:
            told = settings.environment
            environment = payloads.unpack_environment(told) if told else None
            surroundings = environment.get("surroundings", b"") if environment else b""
            self._applied.begin(surroundings, settings.variables, settings.func_cpu)
            results = folder = None
            if environment:
                self._has_one_output = bool(environment.get("one_output"))
                if is_first and self._has_one_output:  # a next job here has the same environment
                    forks.join_output()
                payloads.apply_environment(environment)
                attached: dict[str, bytes | memoryview] = {**environment.get("attached", {})}
                attached |= self._blobs.named()
                own_place = own_modules_place(settings.variables)
                payloads.serve_packages(settings.packages, attached, own_place)
                payloads.load_own_modules(attached, own_place)
                if self._preloaded is not None and payloads.serves_one_of(
                    self._preloaded.looked_for
                ):
                    self._say(Message(Kind.UNFIT))  # imports would have found the caller's
                    os._exit(EXIT_OK)
                wanted, place = environment["directory"], settings.variables.get(VARIABLE)
                if "files" in attached and place is not None:
                    put_down(attached, place)
                    wanted = None  # to find them where the caller's directory is, too
                if settings.in_image:
                    wanted = None
                folder = enter(wanted, place)
                results = self._results_in(environment.get("memory"), settings)
            loaded = payloads.load_function(message.frames[1:], self._blobs.parts())
            self._blobs.close()
            function, retried = unguard(loaded)
            self._applied.finish()
            if is_first:
                import_ahead(function)
            call = payloads.bind_call(function, settings.unpack)
            call_any = bind_any(function, call)
        except BaseException as error:  # importing the caller's modules may raise anything
            frames = payloads.dump_error(error, settings.node, NO_INDEX)
            flush_output()
            self._say(Message(Kind.LOAD_FAILED, frames=frames))
            os._exit(EXIT_OK)
        self._preloaded = None
        self._loaded = Loaded(
            call,
            call_any,
            settings.node,
            results,
            folder,
            settings.timeout_s,
            retried,
            settings.fragments,
        )
        self._walker.load(self._loaded)
        flush_output()
        if is_first:  # else it is known to be ready, and the outcomes that follow tell the rest
            # others need not start a Python, too: they can be forked from this one
            took = time.perf_counter_ns() - (self._started_ns or started)
            may_fork = limits.may_fork()
            frames = []
            if may_fork and took >= preloaded.SLOW_NS:
                frames = [control.encode(preloaded.installed_since(self._modules))]
            self._say(Message(Kind.LOADED, a=took, b=int(may_fork), frames=frames))

    def _results_in(self, memory: bytes | None, settings: LoadSettings) -> SharedResults | None:
        """Return where big results of the job are put down; None: nowhere, they are sent.

        What stays mapped counts as memory of this process. Where that is limited nothing does.
        """
        job = settings.variables.get("BURLA_JOB_ID")
        keeps = bool(memory) and not settings.func_ram
        kept.allow(KEPT_BYTES_MAX if keeps else 0)
        if not memory or not job:
            return None
        directory = directory_of(os.fsdecode(memory), job)
        return SharedResults(directory, self._free_results if keeps else None)

    # --- spans ---

    def _span_of(self, message: Message) -> Span:
        """Return the span of a SPAN message; leaves that were not sent are remembered."""
        leaves = []
        at = 1
        for batch, lo, hi, count in LEAF_RECORD.iter_unpack(message.frames[0]):
            leaf = self._leaves.find(batch, lo)
            if leaf is None:
                frames = message.frames[at : at + count] if count >= 0 else self._mapped(-count)
                leaf = Leaf(lo, hi, frames)
                self._leaves.keep(batch, lo, hi, leaf)
            at += max(0, count)
            assert isinstance(leaf, Leaf), leaf
            leaves.append(leaf)
        if isinstance(message.frames, list):
            message.frames.clear()  # the leaves have them, and let go of them when they have run
        return Span(message, leaves)

    def _mapped(self, size: int) -> list[memoryview]:
        """Return a leaf that lies in memory, whose descriptor has come; empty if it cannot be."""
        try:
            return [map_part(self._parser.descriptors.pop(0), size)]
        except (OSError, IndexError):  # there is no more memory, or there are no descriptors
            return [memoryview(b"")]

    # --- template ---

    def _preload(self, message: Message) -> NoReturn:
        """Import what jobs in these surroundings import, and fork those that load a function."""
        settings, modules = (control.decode(bytes(frame)) for frame in message.frames)
        assert isinstance(settings, LoadSettings)
        assert isinstance(modules, control.Modules)
        environment = payloads.unpack_environment(settings.environment)
        self._applied.begin(environment["surroundings"], settings.variables, settings.func_cpu)
        self._preloaded = preloaded.preload(modules, settings, environment)
        if self._preloaded is None or not limits.may_fork():
            os._exit(EXIT_OK)
        self._serve_as_template()

    def _serve_as_template(self) -> NoReturn:
        """Fork workers that have the function already, each with descriptors from the agent."""
        gc.freeze()  # a collection in a child would copy every page it looks at
        self._say(Message(Kind.HELLO, a=os.getpid(), b=1))
        while True:
            data, fds, _, _ = socket.recv_fds(self._sock, HEADER_BYTES, 3, socket.MSG_WAITALL)
            if not data:
                os._exit(EXIT_OK)
            message = unpack_header(data)
            if message.kind != Kind.FORK or len(fds) != 3:
                os._exit(EXIT_OK)
            if message.b and self._preloaded is not None and self._preloaded.has_changed():
                os._exit(EXIT_OK)
            self._fork(message.a, (fds[0], fds[1], fds[2]))

    def _fork(self, page: int, fds: tuple[int, int, int]) -> None:
        """Fork twice, so that the zygote, a subreaper, becomes the parent and sees the death."""
        flush_output()
        try:
            middle = os.fork()
        except OSError as error:
            middle = -1
            self._say(Message(Kind.FORK_FAILED, a=page, b=error.errno or 0))
        if middle == 0:
            try:
                if os.fork() == 0:
                    self._become_copy(page, fds)
            finally:
                os._exit(EXIT_OK)
        for fd in fds:
            os.close(fd)
        if middle > 0:
            os.waitpid(middle, 0)

    def _become_copy(self, page: int, fds: tuple[int, int, int]) -> NoReturn:
        sock = forks.enter_copy(fds, self._sock, page)
        if self._has_one_output:
            forks.join_output()
        copy = Worker(sock, self._pages, page)
        copy._applied = self._applied
        if self._loaded is not None:  # else it is to load a function
            copy._loaded, copy._modules = self._loaded, self._modules
            copy._has_one_output = self._has_one_output
            copy._walker.load(self._loaded)
        else:
            copy._preloaded = self._preloaded
        copy.serve()


def prepare() -> None:
    """Make this process one that forks workers."""
    forks.prepare()
    rehearse()  # what is imported or cached on first use then is so in all workers
    gc.freeze()  # a collection in a worker would copy every page it looks at


def rehearse() -> None:
    """Load a function and run a span of one call for nobody, all the way from bytes to bytes.

    After a fork each page that is written to, be it a reference count, costs a fault. Done in a
    blank that waits, this takes half a millisecond and more off the first call of a lease.
    """
    environment = dict(os.environ)
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    AgentSlate(words).open(0, 0, 1)
    here: dict[str, object] = {
        "path": list(sys.path),
        "directory": None,
        "shadowed": [],
        "argv": list(sys.argv),
        "main": {},
        "memory": None,
        "surroundings": b"",
    }
    settings = LoadSettings(environment=msgpack.packb(here))
    function = eval("lambda x: x", {"__name__": "__main__"})  # of __main__: it goes by value
    load = Message(Kind.LOAD, frames=[control.encode(settings), *payloads.dump_function(function)])
    span = Message(Kind.SPAN, 0, 0, 0, 1, 0, 1)
    leaf = (0, 0, 1, payloads.dump_results([1]), 0, 0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = Worker(theirs, lambda page: words, 0)
        send_all(ours, [*pack(load), *pack_span(span, [leaf], LeafMemory())])
        for message in one._parser.read(theirs) or ():
            one._obey(message)
        one._parser.read(ours)
    os.environ.clear()
    os.environ.update(environment)


def start_afresh(
    fds: tuple[int, int, int],
    slates: int,
    page: int,
    hash_seed: int,
    confine: Callable[[], None],
    find_python: Callable[[], fresh.Python] | None = None,
) -> NoReturn:
    """Be a worker in a Python of its own, ours or that of an image; called where `run` would be."""
    try:
        confine()
        python = None if find_python is None else find_python()
        for fd in (*fds, slates):
            os.set_inheritable(fd, True)
        words = (*fds, slates, page, time.perf_counter_ns(), *_opened_first())
        line = fresh.command("worker", *words, python=python)
        os.execve(line[0], line, fresh.variables(hash_seed))
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(EXIT_BROKEN)


def _opened_first() -> list[str]:
    """Return a word if files are changed by their descriptors here; see that module."""
    module = sys.modules.get("burla.nodelet.isolation.by_descriptor")
    return ["by_descriptor"] if module is not None and module.is_installed() else []


def main(argv: list[str]) -> NoReturn:
    """Be one: `SOCKET_FD STDOUT_FD STDERR_FD SLATES_FD PAGE STARTED_NS [by_descriptor]`."""
    sock, out, err, slates, page, started_ns = map(int, argv[:6])
    if argv[6:]:
        from burla.nodelet.isolation import by_descriptor  # most do without

        by_descriptor.install()
    forks.prepare()
    run((sock, out, err), Memory(slates), page, started_ns=started_ns)


def run(
    fds: tuple[int, int, int],
    memory: Memory,
    page: int,
    confine: Callable[[], None] = lambda: None,
    started_ns: int | None = None,
) -> NoReturn:
    """Be a worker; called in a fresh child of the zygote, which `confine` takes rights from."""
    try:
        confine()
        sock = forks.enter_worker(fds, memory.fd, page)
        worker = Worker(sock, memory.page, page, started_ns)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(EXIT_BROKEN)
    worker.serve()
