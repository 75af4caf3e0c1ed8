"""Inputs that carry arguments by keyword."""

import pickle

import burla
from burla.values.calls import bind_any, call
from burla.values.payloads import bind_call


def keyed(a: int, *, key: int = 1) -> tuple[int, int]:
    return a, key


def test_a_call_is_equal_to_its_copy_and_shows_its_arguments() -> None:
    one = burla.call(1, "b", self=3, key=[4])
    assert pickle.loads(pickle.dumps(one, 5)) == one != call(1, "b")
    assert repr(one) == "call(1, 'b', self=3, key=[4])"
    assert pickle.loads(pickle.dumps(call(), 5)) == call() != 0


def test_a_call_pickles_small() -> None:
    plain = len(pickle.dumps((1,), 5))
    assert len(pickle.dumps(call(1), 5)) - plain < 50


def test_other_inputs_are_called_as_ever() -> None:
    bound = bind_any(keyed, bind_call(keyed, None))
    assert bound(call(1, key=2)) == (1, 2)
    assert bound(call(a=1)) == (1, 1)
    assert bound(5) == (5, 1)
    assert bound((5,)) == (5, 1)
