"""Functions that come with their inputs, as a worker calls them."""

import pickle
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy
import pytest
from cloudpickle import cloudpickle

from burla.interfaces.codes import Codes, pack
from burla.values import pickling
from burla.values.frames import NotLoadableError
from burla.values.many import InitializerFailed, Many, Packed


@pytest.fixture
def become_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return what makes this a worker, with a `__main__` of its own, for the rest of the test."""
    main = sys.modules["__main__"]
    classes = dict(cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID)

    def become() -> None:
        pickling.serve({"__name__": "__main__"})
        pickling.begin_job()

    yield become
    pickling.begin_job()
    monkeypatch.setattr(pickling, "_main_attributes", None)
    pickling._job_modules.clear()
    sys.modules["__main__"] = main
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.update(classes)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Be a caller whose script this is; return its globals."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return vars(module)


def test_plain_and_other_arguments_reach_the_function() -> None:
    many, codes = Many(), Codes()
    cases: list[tuple[Any, Any]] = [((7, 2), {}), (([3], [1]), {}), (("x",), {})]
    for args, kwargs in cases:
        function: Any = divmod if args == (7, 2) else (lambda *a: a)
        given = pack(codes.of(function), args, kwargs).input
        assert many(*given) == function(*args)
    given = pack(codes.of(sorted), ([2, 1],), {"reverse": True}).input
    assert many(*given) == [2, 1]


def test_big_buffers_are_beside_the_pickle() -> None:
    array = numpy.arange(100_000)
    given = pack(Codes().of(lambda a: a), (array,), {}).input
    assert isinstance(given, Packed)
    held: list[Any] = []
    data = pickle.dumps(given, 5, buffer_callback=held.append)
    assert len(data) < 2000
    got = Many()(pickle.loads(data, buffers=[bytearray(one.raw()) for one in held]))
    numpy.testing.assert_array_equal(got, array)


def test_what_cannot_be_unpickled_there_says_so() -> None:
    code = Codes().of(len)
    with pytest.raises(NotLoadableError, match=r"UnpicklingError|EOFError"):
        Many()(None, code.data, b"\x80", b"")


def run_script(script: dict[str, Any], text: str) -> None:
    exec(compile(textwrap.dedent(text), "script.py", "exec"), script)


def test_each_function_has_the_globals_that_it_was_sent_with(
    script: dict[str, Any], become_worker: Callable[[], None]
) -> None:
    script["x"] = 0
    run_script(script, "def f(by): global x; x += by; return x")
    inputs = []
    for x in (10, 20):
        script["x"] = x
        inputs.append(pack(Codes().of(script["f"]), (1,), {}).input)
    become_worker()
    many = Many()
    assert [many(*one) for one in (*inputs, *inputs, inputs[1])] == [11, 21, 12, 22, 23]


def test_with_an_initializer_they_share_them(
    script: dict[str, Any], become_worker: Callable[[], None]
) -> None:
    run_script(
        script,
        """
        def begin(value): global x; x = value
        def f(): return x
        def g(): global x; x += 1; return x
        """,
    )
    codes = Codes()
    f, g = (pack(codes.of(script[name]), (), {}).input for name in "fg")
    data = codes.of(script["begin"]).data
    become_worker()
    begin = pickling.load_from_caller(data, ())[-2]
    many = Many(begin, (5,))
    assert [many(*f), many(*g), many(*f)] == [5, 6, 6]


def test_an_initializer_that_fails_is_not_called_again() -> None:
    calls = []

    def begin() -> None:
        calls.append(1)
        raise OSError("no disk")

    many = Many(begin)
    given = pack(Codes().of(len), ("ab",), {}).input
    for _ in range(2):
        with pytest.raises(InitializerFailed, match="OSError: no disk"):
            many(*given)
    assert len(calls) == 1


def test_of_many_functions_some_are_kept() -> None:
    many, codes = Many(), Codes()
    for n in range(300):
        assert many(*pack(codes.of(lambda n=n: n), (), {}).input) == n
    assert len(many._functions) == 256
