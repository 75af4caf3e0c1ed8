import functools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from burla.arguments import Arity, check_arguments, decide_unpack, name_of
from burla.values.calls import call
from burla.values.payloads import bind_call, cut_batches


def one(x: Any) -> Any:
    return x


def two(a: Any, b: Any) -> Any:
    return a, b


def none() -> None: ...


def two_or_three(a: Any, b: Any, c: Any = 0) -> None: ...


def one_or_two(a: Any, b: Any = 0) -> None: ...


def any_number(*args: Any) -> None: ...


def dropping(function: Any) -> Any:
    """Decorate a function of two arguments, which then takes one."""

    @functools.wraps(function)
    def wrapper(a: Any) -> Any:
        return function(a, "given")

    return wrapper


def handing_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@functools.lru_cache
def cached_one(a: Any) -> Any:
    return a


@functools.lru_cache
def cached_two(a: Any, b: Any) -> Any:
    return a, b


def two_and_more(a: Any, b: Any, *rest: Any) -> None: ...


def with_keyword(a: Any, *, key: int) -> None: ...


def with_default_keyword(a: Any, b: Any, *, key: int = 0, **more: Any) -> None: ...


async def coroutine(x: Any) -> None: ...


def generator(x: Any) -> Iterator[Any]:
    yield x


async def async_generator(x: Any) -> AsyncIterator[Any]:
    yield x


class Callable_:
    def __call__(self, a: Any, b: Any) -> Any:
        return a

    def method(self, a: Any) -> Any:
        return a


class AsyncCallable:
    async def __call__(self, x: Any) -> None: ...


class Pair(NamedTuple):
    a: int
    b: int


class AsyncInputs:
    def __aiter__(self) -> Any:
        return self


@pytest.mark.parametrize(
    "function",
    [one, len, int, functools.partial(two, 1), Callable_(), Callable_().method, print, max,
     lambda x: x, np.sum, str.upper],
)  # fmt: skip
def test_anything_callable_is_a_function(function: Any) -> None:
    check_arguments(function, [1])
    assert name_of(function)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"function_": 3}, TypeError, "function_ must be callable, not 3"),
        ({"function_": coroutine}, TypeError, "'coroutine' is an async function.*asyncio.run"),
        ({"function_": AsyncCallable()}, TypeError, "'AsyncCallable' is an async function"),
        ({"function_": generator}, TypeError, "'generator' is a generator function.*list"),
        ({"function_": functools.partial(generator, 1)}, TypeError, "is a generator function"),
        ({"function_": async_generator}, TypeError, "is a generator function"),
        ({"inputs": 3}, TypeError, "inputs must be iterable, such as a list, not 3"),
        ({"inputs": one}, TypeError, "inputs must be iterable, .*Call it"),
        ({"inputs": list}, TypeError, "inputs must be iterable, .*Call it"),
        ({"inputs": np.array(3)}, TypeError, "an array without dimensions"),
        ({"inputs": AsyncInputs()}, TypeError, "which only `async for` can walk"),
        ({"func_cpu": 0}, ValueError, "func_cpu must be at least 1, not 0"),
        ({"func_cpu": True}, TypeError, "func_cpu must be a whole number of CPUs.*, not True"),
        ({"func_cpu": 1.5}, TypeError, "func_cpu must be a whole number of CPUs.*, not 1.5"),
        ({"func_cpu": None}, TypeError, "func_cpu must be"),
        ({"func_ram": 0}, ValueError, "func_ram must be more than 0 GB, not 0"),
        ({"func_ram": float("nan")}, ValueError, "func_ram must be more than 0 GB, not nan"),
        ({"func_ram": float("inf")}, ValueError, "func_ram must be"),
        ({"func_ram": "4"}, TypeError, "func_ram must be a number of GB.*, not '4'"),
        ({"func_ram": True}, TypeError, "func_ram must be a number"),
        ({"max_parallelism": 0}, ValueError, "max_parallelism must be at least 1, not 0"),
        ({"max_parallelism": "2"}, TypeError, "max_parallelism must be a whole number"),
        ({"spinner": None}, TypeError, "spinner must be True or False, not None"),
        ({"unpack": 1}, TypeError, "unpack must be True, False or None, not 1"),
        ({"grow": 1}, TypeError, "grow must be True, False or None, not 1"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_what_is_expected(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        check_arguments(**({"function_": one, "inputs": [1]} | arguments))


@pytest.mark.parametrize(
    "inputs", [[], (), {}, set(), "text", range(3), iter([1]), np.zeros(3), {1: 2}.items(), b"x"]
)
def test_anything_iterable_may_be_the_inputs(inputs: Any) -> None:
    check_arguments(one, inputs, func_cpu=np.int64(2), func_ram=0.5, max_parallelism=3)


def test_inputs_that_are_only_indexable_may_be_the_inputs() -> None:
    class Indexable:
        def __getitem__(self, at: int) -> int:
            return [1, 2][at]

    check_arguments(one, Indexable())
    inputs: Any = Indexable()
    assert sum(batch.count for batch in cut_batches(inputs)) == 2


@pytest.mark.parametrize(
    ("function", "unpack", "low", "high"),
    [
        (two, True, 2, 2),
        (none, True, 0, 0),
        (two_or_three, True, 2, 3),
        (two_and_more, True, 2, None),
        (with_default_keyword, True, 2, 2),
        (Callable_(), True, 2, 2),
        (pow, True, 2, 3),
    ],
)
def test_tuples_are_unpacked_if_the_function_cannot_take_one_argument(
    function: Any, unpack: bool, low: int, high: int | None
) -> None:
    shape = decide_unpack(function)
    assert shape.unpack is unpack
    assert shape.check == Arity(name_of(function), low, high, tuples_only=True)


@pytest.mark.parametrize(
    "function",
    [
        one,
        max,
        int,
        Callable_().method,
        functools.partial(two, 1),
        dropping(two),
        cached_one,
        json.dumps,
    ],
)
def test_else_a_tuple_is_passed_whole(function: Any) -> None:
    shape = decide_unpack(function)
    assert not shape.unpack
    assert shape.check is None


@pytest.mark.parametrize(
    "function", [one_or_two, any_number, print, handing_on(one), handing_on(two)]
)
def test_a_function_of_one_argument_and_more_gets_tuples_unpacked(function: Any) -> None:
    shape = decide_unpack(function)
    assert shape.unpack is None
    assert shape.check is not None
    shape.check([3, "x", [1, 2], Pair(1, 2)], 0)  # passed whole
    assert decide_unpack(function, unpack=False).unpack is False
    for without_tuples in (range(3), [1, [2]], (1, 2), np.zeros(3)):
        assert decide_unpack(function, None, without_tuples).unpack is False
    assert decide_unpack(function, None, [1, (2,)]).unpack is None
    assert decide_unpack(function, None, iter([1])).unpack is None


def test_that_tuples_are_unpacked_is_said_once_where_they_could_be_passed_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def either(a: Any, b: Any = 0) -> Any:
        return a, b

    check = decide_unpack(either).check
    assert check is not None
    check([1, 2], 0)
    assert capsys.readouterr().err == ""
    check([1, (2, 3)], 2)
    check([(2,)], 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert "either takes 1 to 2 positional arguments: inputs that are tuples are unpacked" in line
    assert "unpack=False" in line
    with pytest.raises(TypeError, match=r"^input 6 = \(1, 2, 3\): .* has 3; unpack=False passes"):
        check([5, (1, 2, 3)], 5)


def test_what_is_bound_unpacks_tuples_alone_where_both_may_be() -> None:
    call = bind_call(lambda *args: args, None)
    assert [call(x) for x in (1, (1, 2), [1, 2], (), Pair(1, 2))] == [
        *((1,), (1, 2), ([1, 2],), (), (Pair(1, 2),))
    ]


@pytest.mark.parametrize("function", [cached_two])
def test_what_is_written_in_c_is_seen_through(function: Any) -> None:
    assert decide_unpack(function).unpack is True


def test_unpack_overrides() -> None:
    assert decide_unpack(any_number, True).unpack
    assert decide_unpack(one_or_two, True).unpack
    assert not decide_unpack(one_or_two, False).unpack
    with pytest.raises(TypeError, match="unpack=False, but two takes 2 positional arguments"):
        decide_unpack(two, False)


def test_a_function_that_needs_a_keyword_is_refused() -> None:
    check = decide_unpack(with_keyword).check
    assert check is not None
    with pytest.raises(TypeError, match=r"needs the keyword argument 'key'.*functools\.partial"):
        check([1], 0)
    check([call(1, key=2)], 0)
    with pytest.raises(
        TypeError, match=r"^input 7 = call\(1\): with_keyword cannot be called so: m"
    ):
        check([call(1)], 7)
    assert decide_unpack(functools.partial(with_keyword, key=1)).check is None


@pytest.mark.parametrize(
    ("function", "inputs", "text"),
    [
        (two, [1], r"^input 0 = 1: two takes 2 positional arguments, so each input must be a tup"),
        (two, [(1, 2)] * 9 + [(1, 2, 3)], r"^input 9 = \(1, 2, 3\): .* but the input has 3"),
        (two, range(3), r"^input 0 = 0: "),
        (two, np.zeros((3, 2)), r"^input 0 = array\(\[0., 0.\]\): "),
        (none, [(), 1], r"^input 1 = 1: none takes 0 positional arguments"),
        (two_and_more, [(1,)], r"two_and_more takes at least 2 positional arguments, but .* has 1"),
        (two_or_three, iter([(1, 2), (1,)]), r"^input 1 = \(1,\): .* 2 to 3 positional"),
    ],
)
def test_an_input_that_the_function_cannot_take_is_named_by_its_index(
    function: Any, inputs: Any, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        list(cut_batches(inputs, check=decide_unpack(function).check))


def test_any_iterable_is_unpacked_when_that_is_asked_for() -> None:
    check = decide_unpack(two, True).check
    assert check is not None
    check([(1, 2), [1, 2], "ab", iter([1])], 0)
    with pytest.raises(TypeError, match=r"input 6 = \[1\]: .* but the input has 1"):
        check([(1, 2), [1]], 5)
    with pytest.raises(TypeError, match="input 5 = 1: "):
        check([1], 5)


def test_the_call_in_the_worker_follows() -> None:
    assert bind_call(two, True)((1, 2)) == (1, 2)
    assert bind_call(one, False) is one
