"""Ctrl-C is held back for a block, and neither lost nor doubled."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from burla.system.interrupts import HeldInterrupts


@pytest.fixture(autouse=True)
def kept() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGINT)
    yield before
    signal.signal(signal.SIGINT, before)


def test_it_comes_behind_the_block() -> None:
    done: list[object] = []

    def interrupted() -> None:
        with HeldInterrupts():
            for turn in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(turn)
        done.append("behind")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [0, 1, 2]


def test_the_handler_is_as_before_whether_it_came_or_not(kept: Any) -> None:
    with HeldInterrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is kept


def test_a_handler_of_the_users_is_called_once() -> None:
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with HeldInterrupts():
        signal.raise_signal(signal.SIGINT)
        assert seen == []
    assert seen == [signal.SIGINT]


def test_an_error_of_the_block_is_the_context_of_the_interrupt() -> None:
    def interrupted() -> None:
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("first")

    with pytest.raises(KeyboardInterrupt) as raised:
        interrupted()
    assert isinstance(raised.value.__context__, ValueError)


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_not_python_keeps_it(action: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, action)
    with HeldInterrupts():
        assert signal.getsignal(signal.SIGINT) is action
    assert signal.getsignal(signal.SIGINT) is action


def test_a_handler_that_the_block_has_set_stays() -> None:
    def theirs(number: int, frame: object) -> None:
        """Do nothing."""

    with HeldInterrupts():
        signal.signal(signal.SIGINT, theirs)
    assert signal.getsignal(signal.SIGINT) is theirs


def test_other_threads_leave_it_alone(kept: Any) -> None:
    seen = []

    def look() -> None:
        with HeldInterrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(10)
    assert seen == [kept]
