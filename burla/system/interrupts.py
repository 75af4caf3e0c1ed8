"""Ctrl-C that has to wait a moment: where it would break what cannot be broken off."""

import signal
import threading
from contextlib import suppress
from typing import Any


class HeldInterrupts:
    """Hold Ctrl-C back inside the block, and let it come behind it.

    For imports: C code that is being set up may crash (msgspec's decoders do), what comes inside
    a callback of Python's import system is ignored and lost, and half a module may stay behind.
    """

    __slots__ = ("_before", "_has_come")

    def __enter__(self) -> None:
        """Take the signal, if this is the main thread, which alone is interrupted."""
        self._before: Any = None
        self._has_come = False
        if threading.current_thread() is not threading.main_thread():
            return
        if callable(before := signal.getsignal(signal.SIGINT)):
            with suppress(ValueError):  # a subinterpreter
                signal.signal(signal.SIGINT, self._take)
                self._before = before

    def __exit__(self, *error: object) -> None:
        """Give the signal back, and what has come with it."""
        if self._before is None:
            return
        if signal.getsignal(signal.SIGINT) == self._take:
            signal.signal(signal.SIGINT, self._before)
        if self._has_come:
            signal.raise_signal(signal.SIGINT)

    def _take(self, number: int, frame: object) -> None:
        self._has_come = True
