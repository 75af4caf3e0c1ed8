"""The time limit of a call that runs inside a call: raised in it, as in any other.

Nobody can kill such a call, which is in the process of another: what does not end goes on until it
does. In another thread than the main one it cannot be interrupted either.
"""

import signal
import threading
from collections.abc import Callable
from typing import Any

from .errors import CallTimeout

SIGNAL = signal.SIGURG  # as the nodelet sends it; what else it means goes on to mean that


def call_within(timeout_s: float, index: int, call: Callable[[Any], Any], value: Any) -> Any:
    """Return `call(value)`.

    Raises:
        CallTimeout: it took longer; raised in it if that can be done, and here in any case.
    """
    expired = _timed_out(index, timeout_s)
    is_up = threading.Event()
    is_running = True
    thread = threading.get_ident()

    def end_time() -> None:
        is_up.set()
        if is_main and is_running:
            signal.pthread_kill(thread, SIGNAL)

    def on_signal(number: int, frame: Any) -> None:
        nonlocal is_running
        if is_running and is_up.is_set():
            is_running = False  # it is raised once
            raise expired
        if callable(before):
            before(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(SIGNAL)
    if is_main:
        signal.signal(SIGNAL, on_signal)
    timer = threading.Timer(timeout_s, end_time)
    timer.daemon = True
    timer.start()
    try:
        result = call(value)
    except BaseException as error:
        is_running = False
        if error is expired or not is_up.is_set():
            raise
        raise _timed_out(index, timeout_s) from error
    finally:
        is_running = False
        timer.cancel()
        if is_main:
            signal.signal(SIGNAL, before)
    if is_up.is_set():
        raise _timed_out(index, timeout_s)
    return result


def _timed_out(index: int, timeout_s: float) -> CallTimeout:
    error = CallTimeout(index, timeout_s)
    error.burla_nested = True  # type: ignore[attr-defined]  # not of the call around this one
    return error
