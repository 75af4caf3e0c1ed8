"""Threads of ours leave signals to the main thread."""

import signal
import threading

import pytest

from burla.transport.threads import leave_signals


def test_signals_are_blocked_where_there_are_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[set[int]] = []

    def run() -> None:
        leave_signals()
        masks.append({int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])})

    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr("sys.platform", platform)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert [signal.SIGINT in mask for mask in masks] == [True, True, False]
