"""Which functions reach nothing but their arguments."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from machine import machine, run

from burla.nodelet.worker.purity import is_closed

WORD = "a global"


def make_closure(y: int) -> Callable[[int], int]:
    return lambda x: x + y


def with_state(x: int, seen: list[int] = []) -> list[int]:  # noqa: B006  # what is tested
    return seen


def with_inner(x: int) -> Any:
    return [y for y in (x, x)] and (lambda: x)


def generous(x: int, more: int = 3, *rest: int) -> list[int]:
    return [x * more, *rest]


class Callable_:  # as good as any
    def __call__(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    "function", [lambda x: x * 2, lambda x: [x], lambda x: f"{x:>5}", lambda x, y=2: x**y, generous]
)
def test_closed(function: Callable[[int], Any]) -> None:
    assert is_closed(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: WORD,
        lambda x: len(x),
        lambda x: x.real,
        lambda x: [y for y in (x,)] if 0 else (lambda: x),
        make_closure(1),
        with_state,
        with_inner,
        abs,
        functools.partial(pow, 2),
        Callable_(),
    ],
)
def test_not_closed(function: Callable[[Any], Any]) -> None:
    assert not is_closed(function)


def test_whatever_a_closed_function_returns_comes_back() -> None:
    async def play() -> list[Any]:
        async with machine() as m:
            return await m.run(lambda x: [x, (x, str)] if 0 else [x, (x, None)], range(5000), 1)

    assert run(play()) == [[x, (x, None)] for x in range(5000)]


def test_an_error_in_the_middle_names_its_input() -> None:
    async def play() -> list[Any]:
        async with machine() as m:
            return await m.run(lambda x: 100 // (x - 3000), range(2900, 3100), 1)

    results = run(play())
    assert results[99] == -100
    assert isinstance(results[100].exception, ZeroDivisionError)
    assert results[100].index == 100
    assert results[101:] == [100 // (x - 3000) for x in range(3001, 3100)]
