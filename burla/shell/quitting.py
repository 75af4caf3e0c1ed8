r"""Ctrl-\ while a job is waited for: it is detached, instead of the end of this process."""

import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from .job import Job
from .stored import StoredJob

# Windows has none, but the key that ends programs: Ctrl-Break.
SIGNAL: int = getattr(signal, "SIGQUIT", 0) or getattr(signal, "SIGBREAK", 0)


class Quitting:
    """Takes the signal meanwhile, unless somebody else does."""

    __slots__ = ("_has_asked", "_is_ours", "_whose")

    def __init__(self, whose: Any) -> None:
        """Prepare; `whose`: has a `job` that may be another one by then."""
        self._whose = whose
        self._is_ours = False
        self._has_asked = False

    def __enter__(self) -> None:
        """Take it in the main thread, if it has its default action."""
        job = self._whose.job
        if not SIGNAL or type(job) is StoredJob:  # a stored one goes on anyway
            return
        if isinstance(job, Job) and job.is_private:  # it ends with this process
            return
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(SIGNAL) is signal.SIG_DFL and not _is_caught_elsewhere():
            with suppress(ValueError):  # a subinterpreter
                signal.signal(SIGNAL, self._take)
                self._is_ours = True

    def __exit__(self, *error: object) -> None:
        """Let it be as it was, unless it was changed meanwhile."""
        if self._is_ours and signal.getsignal(SIGNAL) == self._take:
            signal.signal(SIGNAL, signal.SIG_DFL)

    def _take(self, *_: object) -> None:
        job = self._whose.job
        is_refused = type(job) is Job and job.is_refused
        if self._has_asked and not is_refused:  # who asks once more does not want to wait
            signal.signal(SIGNAL, signal.SIG_DFL)
            signal.raise_signal(SIGNAL)
        self._has_asked = True
        if type(job) is Job:
            job.ask_to_detach()


def _is_caught_elsewhere() -> bool:
    """Return whether what is not Python takes the signal, as `faulthandler.register` does."""
    if "faulthandler" not in sys.modules:
        return False
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (SIGNAL - 1) & 1)
    return False
