"""Forking what forks workers from the process that is to be its agent, before that is one.

A Python is started once instead of twice so, and what both import is imported once. Only where the
process may still fork: it has one thread and no secret, has imported nothing that the other must
not have, and has the workers' seed of `hash()`.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from .launching import Launch, Process

# What both import, in the order in which they would: the zygote for its workers, the agent to
# understand it. (`burla.values` is for those who open payloads, and so not for an agent.)
SHARED = (
    "logging",
    "pathlib",
    "pickle",
    "tempfile",
    "burla.nodelet.worker.control",
    "burla.nodelet.worker.folders",
    "burla.nodelet.worker.pipes",
    "burla.nodelet.isolation.sandbox",
)


class Forked:
    """A child of ours, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None: it has not."""
        if self.returncode is None:
            with suppress(ChildProcessError):  # somebody else has reaped it
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def fork_module(module: str, path: Sequence[str], *arguments: str) -> Launch:
    """Return what forks this process, and calls `main` of a module of the workers' room there.

    Its arguments are the descriptors that it inherits, our pid, and `arguments`.

    Args:
        module: its name.
        path: where it finds modules.
        arguments: for it.
    """

    def start(inherited: Sequence[int]) -> Process:
        for name in SHARED:
            importlib.import_module(name)
        agent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be(module, path, inherited, [*map(str, (*inherited, agent)), *arguments])
        return Forked(pid)

    return start


def _be(module: str, path: Sequence[str], inherited: Sequence[int], words: list[str]) -> NoReturn:
    try:
        os.setsid()
        sys.path[:] = path
        gc.disable()  # no import is ever garbage
        from burla.nodelet.worker.forks import close_all_but

        close_all_but(set(inherited))
        main = importlib.import_module(f"burla.nodelet.worker.{module}").main
        gc.freeze()
        gc.enable()
        main(words)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(1)
