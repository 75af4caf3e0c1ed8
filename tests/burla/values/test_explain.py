import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from burla.values.explain import REPR_CHARS_MAX, describe_error, name_of, short_repr
from burla.values.payloads import ResultNotPicklableError, Sent, dump_function, dump_result

LOCK = threading.Lock()


class Holder:
    def __init__(self) -> None:
        self.fine = 1
        self.attr = threading.Lock()

    def method(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError("no")


class LongRepr:
    def __repr__(self) -> str:
        return "x\n" * 10**6


def closing_over(h: Any) -> Any:
    def inner(x: int) -> Any:
        return h, x

    return inner


def with_default(x: int, options: dict[str, list[Any]] = {"a": [1, LOCK]}) -> Any:  # noqa: B006
    return x, options


def by_value(function: Any) -> Any:
    """Return the function as one that its module does not have, which is sent by value."""
    function.__qualname__ = f"elsewhere.{function.__qualname__}"
    return function


def named_global(x: int) -> Any:
    return LOCK


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (closing_over(Holder()), r"closure variable 'h': .*\.__closure__\['h'\]\.attr is a _thr"),
        (by_value(named_global), r"global variable 'LOCK': .*\.__globals__\['LOCK'\] is a _thr"),
        (by_value(with_default), r"default value 0: .*\.__defaults__\[0\]\['a'\]\[1\] is a _thr"),
        (functools.partial(print, 1, end=LOCK), r"'partial\(print\)' .*\.keywords\['end'\] is a"),
        (functools.partial(print, LOCK), r"argument 0 of the partial: .*print\)\.args\[0\] is a"),
        (Holder().method, r"object of the bound method: Holder\.method\.__self__\.attr is a _thr"),
        (Holder(), r"function_ 'Holder' cannot be sent: Holder\.attr is a _thread\.lock"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_path(function: Any, text: str) -> None:
    sent = Sent()
    with pytest.raises(TypeError, match=text):
        dump_function(function, sent=sent)
    assert sent.classes == {}


def test_a_result_that_cannot_be_pickled_is_named_by_its_path() -> None:
    with pytest.raises(ResultNotPicklableError, match=r"result\['a'\]\[0\] is a _thread\.lock"):
        dump_result({"a": [LOCK]})


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (17, "17"),
        ("a\nb", r"'a\nb'"),
        (BadRepr(), "<BadRepr instance at 0x"),
        ([BadRepr()], "[<BadRepr instance at 0x"),
    ],
)
def test_a_short_repr(obj: Any, expected: str) -> None:
    assert expected in short_repr(obj)


@pytest.mark.parametrize(
    "make",
    [
        LongRepr,
        lambda: "x" * 10**7,
        lambda: list(range(10**6)),
        lambda: {i: i for i in range(10**5)},
        lambda: 10**5000,
        lambda: np.zeros((1000, 1000)),
        lambda: b"x" * 10**7,
        lambda: [[[["x" * 1000] * 100] * 100] * 100],
    ],
)
def test_a_repr_is_one_bounded_line(make: Callable[[], Any]) -> None:
    text = short_repr(make())
    assert len(text) <= REPR_CHARS_MAX
    assert "\n" not in text


def test_every_callable_has_a_name() -> None:
    assert name_of(len) == "len"
    assert name_of(functools.partial(functools.partial(len))) == "partial(len)"
    assert name_of(Holder()) == "Holder"
    assert name_of(Holder().method) == "Holder.method"
    assert name_of(int) == "int"


def test_an_error_is_described_whatever_its_text() -> None:
    assert describe_error(ValueError()) == "ValueError"
    assert describe_error(ValueError("x")) == "ValueError: x"
    assert len(describe_error(ValueError("x" * 10**6))) < 20_000
