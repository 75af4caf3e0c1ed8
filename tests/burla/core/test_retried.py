"""What the user hears of calls that were called again."""

from burla.core.retried import Retried
from burla.protocol.fields import Try


def test_nothing_is_said_of_nothing() -> None:
    assert Retried().summary() == ""


def test_calls_are_counted_once_however_often_they_are_told() -> None:
    retried = Retried()
    retried.take([Try(5, 1, 0.0, b"KeyError")])
    assert retried.summary() == "1 call was called again after errors: input 5 (KeyError)"
    retried.take([Try(5, 1, 0.0, b"KeyError"), Try(5, 2, 0.0, b"OSError")])
    retried.forget([(0, 6)])
    retried.take([Try(index, 1) for index in range(10, 13)])
    assert retried.summary() == (
        "4 calls were called again after errors, 5 times in all: input 5 (OSError, 2 times),"
        " input 10 (error), input 11 (error) and 1 more"
    )


def test_those_without_outcome_are_told_again() -> None:
    retried = Retried()
    retried.take([Try(1, 2, 3.0, b"KeyError"), Try(2, 1), Try(900, 1)])
    retried.forget([(2, 800)])
    assert retried.open() == (Try(1, 2, 3.0), Try(900, 1))
