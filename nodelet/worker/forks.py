"""What a process does right after it was forked, so that nothing of its parent shows."""

import ctypes
import fcntl
import io
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .dumps import describe_crashes
from .processes import Wakeup

FD_ABOVE = 500  # where our descriptor goes: `os.closerange(3, 256)` and the like pass below it
FD_HEADROOM = 8  # below the limit on descriptors, when that is lower
OUTPUT_BUFFER_BYTES = 256 << 10  # what a pipe takes: a line up to here is one write, its end too
OOM_SCORE = 500  # as if it used half of the machine more: a worker goes before the daemons do
_IOLBF = 1  # stdio.h

# As a fresh interpreter has them; all others are SIG_DFL.
_NOT_DEFAULT: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}
_FIXED = (signal.SIGKILL, signal.SIGSTOP)

_c_buffer = ctypes.create_string_buffer(4096)  # of C's stdout, for ever

_crash = -1  # where faulthandler describes a crash of this process

# kept alive here too: functions may drop or replace sys.stdout
_streams: list[io.TextIOWrapper] = []


def reset_signals(numbers: Iterable[int] = ()) -> None:
    """Handle and block no signal, or none of `numbers`, but as a fresh interpreter does."""
    signal.set_wakeup_fd(-1)
    for number in numbers or signal.valid_signals():
        if number not in _FIXED:
            wanted = _NOT_DEFAULT.get(number, signal.SIG_DFL)
            with suppress(OSError):  # those that the C library keeps for itself
                if signal.getsignal(number) is not wanted:
                    signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def enter_worker(fds: tuple[int, int, int], memory: int, page: int) -> socket.socket:
    """Make a child of the zygote a worker: own session, own output, nothing inherited.

    Does little: each page that is written to after a fork, be it a reference count, costs as much
    as a hundred calls. What can be done once is done by `prepare`, before.

    Args:
        fds: of the command socket, stdout and stderr.
        memory: descriptor of the slates.
        page: of its slate.
    """
    global _crash
    os.setsid()
    _offer_to_oom_killer()
    sock = _place(fds)
    _crash = describe_crashes(memory, page, sock.fileno())
    close_all_but({sock.fileno(), _crash})
    reset_signals(Wakeup.SIGNALS)
    return sock


def enter_copy(fds: tuple[int, int, int], template: socket.socket, page: int) -> socket.socket:
    """Make a child of a template a worker; what the loaded function has opened stays open."""
    global _crash
    os.setsid()
    template.close()
    sock = _place(fds)
    for fd in fds:
        os.close(fd)
    crash, _crash = _crash, describe_crashes(_crash, page, sock.fileno())
    if crash >= 0:
        os.close(crash)
    reseed()
    return sock


def _offer_to_oom_killer() -> None:
    """Let the kernel rather kill this process, and what it forks, than others without memory."""
    with suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(fd, 16)) < OOM_SCORE:
                os.pwrite(fd, b"%d" % OOM_SCORE, 0)
        finally:
            os.close(fd)


def _place(fds: tuple[int, int, int]) -> socket.socket:
    """Put our socket where nobody stumbles upon it, and the pipes at 1 and 2."""
    above = max(3, min(FD_ABOVE, _fd_limit() - FD_HEADROOM))
    sock = socket.socket(fileno=fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, above))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    os.dup2(fds[1], 1)
    os.dup2(fds[2], 2)
    return sock


def close_all_but(kept: set[int]) -> None:
    """Close all but 0, 1, 2 and `kept`."""
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc; trying a million numbers takes 0.1 s
        opened = list(range(_fd_limit()))
    for fd in opened:
        if fd > 2 and fd not in kept:
            with suppress(OSError):
                os.close(fd)


def _fd_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def join_output() -> None:
    """Let stderr go where stdout goes, in the order in which both are written."""
    os.dup2(1, 2)


def prepare() -> None:
    """Make this process one that forks workers: what can be the same in all of them is made here.

    Or a worker itself, if nobody has forked it.
    """
    reset_signals()
    null = os.open(os.devnull, os.O_RDONLY)
    reader, writer = os.pipe()  # the streams look once at what they write to: pipes, in workers
    with _placed_instead((null, writer, writer)):
        _open_streams()
    for fd in (null, reader, writer):
        os.close(fd)


@contextmanager
def _placed_instead(fds: tuple[int, int, int]) -> Iterator[None]:
    """Let 0, 1 and 2 be these, for a while."""
    before = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in range(3)]
    try:
        for place, fd in enumerate(fds):
            os.dup2(fd, place)
        yield
    finally:
        for place, fd in enumerate(before):
            os.dup2(fd, place)
            os.close(fd)


def _open_streams() -> None:
    """Give Python and C line-buffered output, so that a line shows while the function runs."""
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(  # type: ignore[misc]
        io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8"
    )
    out, err = _line_writer(1), _line_writer(2)
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = err  # type: ignore[misc]
    _streams[:] = [out, err]
    with suppress(ValueError, OSError):  # a C library that calls it differently
        libc = ctypes.CDLL(None)
        size = ctypes.c_size_t(len(_c_buffer))
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), _c_buffer, _IOLBF, size)


def _line_writer(fd: int) -> io.TextIOWrapper:
    # backslashreplace: a print never fails for what it prints
    raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False), OUTPUT_BUFFER_BYTES)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)


def reseed() -> None:
    """Give the random generators of this process a sequence of their own."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    torch = sys.modules.get("torch")
    with suppress(Exception):  # half imported, or something else of that name
        if numpy_random is not None:
            numpy_random.seed()
    with suppress(Exception):
        if torch is not None:
            torch.manual_seed(int.from_bytes(os.urandom(8)))
