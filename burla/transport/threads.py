"""Threads of ours take no signals: these are for the main thread, which alone handles them."""

import signal
import sys


def leave_signals() -> None:
    """Have the signals of the process go to other threads than this one."""
    if sys.platform != "win32":  # there Ctrl-C has a thread of its own, and only that exists
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
