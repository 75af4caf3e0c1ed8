"""How a daemon runs: on uvloop, until it is told to end or its owner ends; then within seconds.

It is told by SIGTERM, SIGINT or (unless ignored, as under nohup) SIGHUP. An owner is watched by a
pidfd, so that `kill -9` is noticed too: the parent-death signal would follow the thread that
started the daemon, and a pipe would be inherited by whatever the owner starts.
"""

import argparse
import asyncio
import errno
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from . import logs
from .exit_codes import EXIT_INTERRUPTED, EXIT_OK
from .failure import SHORTAGE, Complaint
from .owner import Owner, remove_directory
from .preparing import PRIVATE_LEVEL

if sys.platform != "win32":
    import resource


END_S = 8.0  # a main that has not ended by then is cut off; users are promised 10 s
OWNER_POLL_S = 0.5  # where there is no pidfd
LISTEN_POLL_S = 0.002

log = logging.getLogger(__name__)


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """Let a daemon be told how much it logs; `log_level` says it then."""
    parser.add_argument(
        "--log-level",
        choices=logs.LEVELS,
        help="what is logged: this, and what is more severe (default: info)",
    )


def log_level(options: argparse.Namespace, *, is_private: bool = False) -> int:
    """Return the level that was asked for, or what is usual."""
    if options.log_level is not None:
        return logging.getLevelNamesMapping()[options.log_level.upper()]
    return PRIVATE_LEVEL if is_private else logging.INFO


def run(main: Callable[[], Coroutine[Any, Any, None]], owner: Owner | None = None) -> int:
    """Run `main()` until it returns, a signal says so, or `owner` has ended; return the exit code.

    `main` is cancelled and may then clean up for `END_S`; an exception of it comes out here.

    Raises:
        Complaint: this machine has not enough of something.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run_until_told(main, owner))
    except OSError as error:
        if (why := _shortage(error)) is None:
            raise
        raise Complaint(SHORTAGE, why) from None  # whoever reads it needs no traceback
    finally:
        if owner is not None and owner.directory is not None and not owner.alive():
            remove_directory(owner.directory)
        faulthandler.cancel_dump_traceback_later()


def _shortage(error: OSError) -> str | None:
    """Return in words what this machine has not enough of; None: that is not why."""
    match error.errno:
        case errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return f"too many open files: the limit, {limit}, is too low (ulimit -n)"
        case errno.ENFILE:
            return "too many open files in the whole system (fs.file-max)"
        case errno.EAGAIN:
            return "no process or thread can be started: too many of this user (ulimit -u)"
        case errno.ENOMEM:
            return "out of memory"
        case errno.ENOSPC | errno.EDQUOT:
            return f"{error.strerror}: {error.filename or 'a file of ours'}"
        case _:
            return None


async def wait_listening(path: str | None, timeout_s: float) -> None:
    """Return when the socket file at `path` exists, or late; at once if it is None.

    A connect that comes too early is tried again by libzmq only after 100 to 200 ms.
    """
    until = time.monotonic() + timeout_s
    while path is not None and time.monotonic() < until:
        if os.path.exists(path):  # noqa: ASYNC240  # one stat of a local file
            return
        await asyncio.sleep(LISTEN_POLL_S)


async def _run_until_told(
    main: Callable[[], Coroutine[Any, Any, None]], owner: Owner | None
) -> int:
    if owner is not None and not owner.alive():
        return EXIT_OK
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None
    reasons: list[str] = []

    def end(reason: str) -> None:
        if not reasons:  # a second cancel would interrupt the cleaning up
            log.info("ending: %s", reason)
            faulthandler.dump_traceback_later(END_S, exit=True, file=2)
            this.cancel()
        reasons.append(reason)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, signal.Signals(number).name)
    watch = asyncio.create_task(_watch(owner, lambda: end("its owner has ended")))
    gc.freeze()  # what is imported stays: to look at all of it takes milliseconds, again and again
    try:
        await main()
    except asyncio.CancelledError:
        if not reasons:
            raise
    finally:
        watch.cancel()
        await asyncio.wait([watch])
    watch_failed = None if watch.cancelled() else watch.exception()
    if watch_failed is not None:
        raise watch_failed
    return EXIT_INTERRUPTED if reasons[:1] == ["SIGINT"] else EXIT_OK


async def _watch(owner: Owner | None, ended: Callable[[], None]) -> None:
    """Call `ended` as soon as `owner` has ended."""
    if owner is None:
        return
    pidfd = _open_pidfd(owner.pid)
    try:
        if pidfd is None:
            while owner.alive():  # noqa: ASYNC110  # nothing here could set an Event
                await asyncio.sleep(OWNER_POLL_S)
        elif owner.alive():  # else the pidfd may be of another process that got the same id
            await _wait_readable(pidfd)
    finally:
        if pidfd is not None:
            os.close(pidfd)
    ended()


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # it has ended; an old kernel, a sandbox; not Linux
        return None


async def _wait_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
