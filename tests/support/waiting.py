"""Waiting for what other processes do, with a deadline instead of a sleep."""

import time
from collections.abc import Callable, Iterable

import psutil

LATE_S = 20.0  # only a broken thing takes this long, however busy the machine is


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = LATE_S) -> None:
    """Return as soon as `true()`, fail after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


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
