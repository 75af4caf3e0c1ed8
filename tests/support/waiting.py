"""Waiting for what other processes do, with a deadline instead of a sleep."""

import time
from collections.abc import Callable, Iterable

import psutil

ASK_S = 0.01  # between two looks
ASK_SHARE = 9  # times what a look takes
ASK_S_MAX = 1.0
LATE_S = 20.0  # only a broken thing takes this long, however busy the machine is


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = LATE_S) -> None:
    """Return as soon as `true()`, fail after `timeout_s`.

    What is dear to ask, as a program that must start, is asked less often.
    """
    begun_s = time.monotonic()
    until_s = begun_s + timeout_s
    while not true():
        now_s = time.monotonic()
        assert now_s < until_s, f"not within {timeout_s} s: {what}"
        time.sleep(min(ASK_S_MAX, max(ASK_S, ASK_SHARE * (now_s - begun_s))))
        begun_s = time.monotonic()


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended; one that nobody has reaped yet has."""
    return [p for p in processes if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]


def wait_gone(processes: Iterable[psutil.Process], timeout_s: float = LATE_S) -> None:
    """Return as soon as all `processes` have ended, fail after `timeout_s`."""
    all_of_them = list(processes)
    until = time.monotonic() + timeout_s
    while left := running(all_of_them):
        assert time.monotonic() < until, f"alive after {timeout_s} s: {left}"
        time.sleep(0.01)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)
