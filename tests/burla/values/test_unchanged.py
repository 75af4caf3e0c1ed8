"""A pickle of a function that is used again is the one that would be made anew."""

import sys
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle
import pytest

from burla.values import unchanged
from burla.values.payloads import load_function, take_apart_function
from burla.values.pickling import FunctionPickler, Sent

SCRIPT = """
import math, string as text
FACTOR, LISTED, NAMES = 2, [1], ("a", 1)

def helper(x):
    return x * FACTOR

def other(x):
    return -x

def make(factor):
    def inner(x):
        return x * factor
    return inner

inner = make(3)

def bare(x):
    return x + 1

def called(x: int = 1, y: str = "") -> int:
    "Do it."
    return helper(x) + math.floor(x) + len(text.digits) + len(NAMES)

def recursive(x):
    return recursive(x - 1) if x else FACTOR

def listed(x):
    return LISTED

def evaluated(x):
    return eval("FACTOR")

def missing(x):
    return LATER
"""
MODULES = object()  # stands for what `new_sent` finds


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand for a script; nothing was pickled before."""
    script = ModuleType("__main__")
    exec(textwrap.dedent(SCRIPT), vars(script))
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.setattr(unchanged, "_kept", None)
    return script


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what is pickled."""
    pickled: list[object] = []
    dump = FunctionPickler.dump

    def note(pickler: FunctionPickler, obj: object) -> None:
        pickled.append(obj)
        dump(pickler, obj)

    monkeypatch.setattr(FunctionPickler, "dump", note)
    return pickled


def pickle_of(function: object, sample: tuple[Any, ...] = (1,)) -> tuple[list[bytes], list[Any]]:
    sent = Sent(modules=MODULES)
    frames = take_apart_function(function, sample=sample, sent=sent).cut()  # type: ignore[arg-type]
    return frames, sent.codes


def pickled_anew(function: object) -> tuple[list[bytes], list[Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unchanged, "_kept", None)
        return pickle_of(function)


@pytest.mark.parametrize("name", ["called", "recursive", "bare", "inner", "missing"])
def test_a_function_is_pickled_once(main: Any, dumps: list[object], name: str) -> None:
    function = getattr(main, name)
    first = pickle_of(function)
    assert [pickle_of(function) for _ in range(3)] == [first] * 3
    assert len(dumps) == 1


def test_a_function_of_a_module_is_pickled_once(main: Any, dumps: list[object]) -> None:
    first = pickle_of(textwrap.dedent)
    assert pickle_of(textwrap.dedent) == first
    assert load_function(first[0]) is textwrap.dedent
    assert len(dumps) == 1


@pytest.mark.parametrize("name", ["listed", "evaluated"])
def test_what_may_change_unseen_is_pickled_each_time(main: Any, name: str) -> None:
    pickle_of(getattr(main, name))
    main.LISTED.append(2)
    assert pickle_of(getattr(main, name)) == pickled_anew(getattr(main, name))
    assert unchanged._kept is None


def _cell(main: Any) -> None:
    main.inner.__closure__[0].cell_contents = 4


def _redefine_helper(main: Any) -> None:
    exec("def helper(x): return x", vars(main))


CHANGES: dict[str, Callable[[Any], object]] = {
    "a global": lambda main: setattr(main, "FACTOR", 3),
    "an equal global of another type": lambda main: setattr(main, "FACTOR", 2.0),
    "a tuple": lambda main: setattr(main, "NAMES", ("a", True)),
    "a list for a number": lambda main: setattr(main, "FACTOR", [2]),
    "a global that was not there": lambda main: setattr(main, "LATER", 1),
    "a global that is gone": lambda main: delattr(main, "FACTOR"),
    "another helper": lambda main: setattr(main, "helper", main.other),
    "a helper defined anew": _redefine_helper,
    "the code of a helper": lambda main: setattr(main.helper, "__code__", main.other.__code__),
    "a module": lambda main: setattr(main, "math", textwrap),
    "a module that is a number": lambda main: setattr(main, "math", 1),
    "a default": lambda main: setattr(main.called, "__defaults__", (2, "")),
    "no defaults": lambda main: setattr(main.called, "__defaults__", None),
    "a default that must be named": lambda main: setattr(main.called, "__kwdefaults__", {"y": 1}),
    "an annotation": lambda main: main.called.__annotations__.update(x=float),
    "no annotations": lambda main: main.called.__annotations__.clear(),
    "its text": lambda main: setattr(main.called, "__doc__", "Do more."),
    "its name": lambda main: setattr(main.called, "__name__", "x"),
    "its full name": lambda main: setattr(main.called, "__qualname__", "x"),
    "an attribute": lambda main: setattr(main.called, "seen", 1),
    "no place by its name": lambda main: setattr(main, "called", 1),
    "what is closed over": _cell,
    "the file": lambda main: setattr(main, "__file__", "/script.py"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_pickled_anew(main: Any, what: str) -> None:
    functions = [main.called, main.recursive, main.inner, main.missing]
    for function in functions:
        before = pickle_of(function)
        assert pickle_of(function) == before
    for function in functions:
        pickle_of(function)
        undo = vars(main).copy()
        CHANGES[what](main)
        assert pickle_of(function) == pickled_anew(function)
        vars(main).update(undo)


def test_a_shared_variable_is_not_one_of_each(main: Any) -> None:
    text = "def make(n):\n def f(): return n\n def g(): return f() + n\n return f, g"
    exec(f"{text}\nshared, g = make(1)\nalone, _ = make(1)\nf = shared", vars(main))
    exec("def both(x): return f() + g()", vars(main))
    shared = pickle_of(main.both)
    main.f = main.alone
    assert pickle_of(main.both) == pickled_anew(main.both)
    assert pickle_of(main.both) != shared


def test_other_classes_of_inputs_go_along(main: Any) -> None:
    pickle_of(main.bare)
    with_float = pickle_of(main.bare, (1.0,))
    assert with_float != pickle_of(main.bare)


def test_what_is_registered_meanwhile_counts(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("registered_module")
    exec("def function(x): return x", vars(module))
    monkeypatch.setitem(sys.modules, "registered_module", module)
    named = pickle_of(module.function)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert pickle_of(module.function) != named
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert pickle_of(module.function) == named


def test_hooks_hinder_only_a_function_for_which_they_give_something(
    main: Any, dumps: list[object]
) -> None:
    given: dict[str, bytes] = {}
    asked: list[list[Any]] = []

    def carried(codes: Any) -> dict[str, bytes]:
        asked.append(list(codes))
        return given

    def pickle() -> None:
        take_apart_function(main.called, sent=Sent(modules=MODULES, carried=carried))

    pickle()
    pickle()
    assert len(dumps) == 1
    assert all(set(codes) == {main.called.__code__, main.helper.__code__} for codes in asked)
    given["hooked"] = b"its code"  # there is one now by the name of what the function imports
    pickle()
    assert len(dumps) == 3  # again, and then together with that


def test_nothing_big_is_kept(main: Any) -> None:
    main.FACTOR = "x" * (unchanged.LENGTH_MAX + 1)
    pickle_of(main.recursive)
    assert unchanged._kept is None


def test_a_kept_pickle_keeps_no_function_alive(main: Any) -> None:
    pickle_of(main.called)
    assert unchanged._kept is not None
    assert not any(type(one) is FunctionType for one in unchanged._kept.look)
