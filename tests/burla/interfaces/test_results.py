"""Results of many calls, taken in one thread and given in another."""

import pytest

from burla.interfaces.pool import AsyncResult
from burla.interfaces.results import CancelledCall, Failed, Results


def test_they_are_given_in_order_or_as_they_came() -> None:
    ordered, unordered = Results(), Results(is_ordered=False)
    for results in (ordered, unordered):
        results.succeed(1, "b")
        results.fail(2, KeyError(2))
        results.succeed(0, "a")
    assert [ordered.take(0), ordered.take(1)] == ["a", "b"]
    with pytest.raises(KeyError):
        ordered.take(2)
    assert unordered.take(0) == "b"
    assert type(unordered.get(1)) is Failed
    assert unordered.take(2) == "a"
    with pytest.raises(TimeoutError):
        ordered.take(3, 0)


def test_what_nobody_wants_is_not_called() -> None:
    results = Results()
    assert results.begin(0)
    results.drop()
    assert not results.begin(1)
    with pytest.raises(CancelledCall):
        results.take(1)


def test_a_list_has_the_first_error_when_all_have_ended() -> None:
    heard: list[object] = []
    result: AsyncResult[list[int]] = AsyncResult(3, heard.append, heard.append)
    result.succeed(2, 9)
    result.fail(1, KeyError("first"))
    assert not result.ready()
    result.fail(0, KeyError("second"))
    assert result.ready()
    assert [repr(one) for one in heard] == ["KeyError('first')"]
    with pytest.raises(KeyError, match="first"):
        result.get()


def test_a_callback_that_raises_leaves_nobody_waiting() -> None:
    result: AsyncResult[int] = AsyncResult(None, lambda value: 1 / value)
    with pytest.raises(ZeroDivisionError):
        result.succeed(0, 0)
    assert result.get(0) == 0
