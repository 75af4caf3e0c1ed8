"""Which imports each call of a function is certain to begin with."""

import functools
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from burla.values.leading import Import, import_ahead, leading_imports, packages_ahead
from burla.values.many import Many

SOURCE = """
import functools, os, sys, time

def helper(x, *more, key=None):
    import one.two as two
    from three import four, five

    return two, four, five

def plain(x):
    'Have a docstring.'
    import one
    import one.two as two
    from three import four

    if x:
        import five
    return two, four

def after_harmless_calls(x):
    begun = time.time()
    print(f"at {begun - 1:.1f}", x, os.getpid())
    y = [x, len("abc")]
    import one

    return one, y

def after_a_variable(x):
    os.environ["OMP_NUM_THREADS"] = "1"
    import one

    return one

def after_a_path(x):
    sys.path.insert(0, "here")
    import one

    return one

def under_a_condition(x):
    if x:
        import one
    return one

def in_a_loop(x):
    for _ in range(x):
        import one
    return one

def under_a_context(x):
    with x:
        import one
    return one

def tried(x):
    try:
        import one
    except ImportError:
        import two as one
    return one

def calls(x):
    return helper(x)

def calls_by_keyword(x):
    return helper(x, key=x + 1)

def calls_with_all(*args, **kwargs):
    return helper(*args, **kwargs)

def calls_twice(x):
    return calls(calls(x)) + plain(x)

def calls_another_first(x):
    return print(x), sorted(map(helper, [x]))

def calls_itself(x):
    return calls_itself(x)

def shared(x):
    global one
    import one

    return one

def relative(x):
    from . import one

    return one

def generates(x):
    import one

    yield one

async def waits(x):
    import one

    return one

def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper

class Called:
    def __call__(self, x):
        return helper(x)

    def method(self, x):
        import one

        return one
"""

OF_HELPER = [Import("one.two", ()), Import("three", ("four", "five"))]
ONE = [Import("one", ())]


def scope_of(source: str) -> dict[str, Any]:
    """Return what this source, which need not be importable, defines."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope


@pytest.mark.parametrize(
    ("expression", "imports"),
    [
        ("plain", [Import("one", ()), Import("one.two", ()), Import("three", ("four",))]),
        ("after_harmless_calls", ONE),
        ("after_a_variable", []),
        ("after_a_path", []),
        ("under_a_condition", []),
        ("in_a_loop", []),
        ("under_a_context", []),
        ("tried", ONE),
        ("calls", OF_HELPER),
        ("calls_by_keyword", OF_HELPER),
        ("calls_with_all", OF_HELPER),
        ("calls_twice", OF_HELPER),
        ("calls_another_first", []),
        ("calls_itself", []),
        ("shared", ONE),
        ("relative", []),
        ("generates", []),
        ("waits", []),
        ("wrapped(helper)", OF_HELPER),
        ("functools.partial(helper, 1)", OF_HELPER),
        ("Called()", OF_HELPER),
        ("Called().method", ONE),
        ("lambda x: helper(x)", OF_HELPER),
        ("len", []),
        ("Called", []),
        ("3", []),
    ],
)
def test_the_imports_that_come_first_are_found(expression: str, imports: list[Import]) -> None:
    assert leading_imports(eval(expression, scope_of(SOURCE))) == imports


def test_code_that_no_compiler_writes_is_left_alone() -> None:
    scope = scope_of("def f(x):\n    import one")
    code = scope["f"].__code__
    scope["f"].__code__ = code.replace(co_code=code.co_code[:2] + code.co_code[-10:])
    import_ahead(scope["f"])


def test_a_long_function_has_its_names_found() -> None:
    lines = [f"import m{number}" for number in range(600)]
    scope = scope_of("def f(x):\n    " + "\n    ".join(lines))
    assert [one.module for one in leading_imports(scope["f"])] == [f"m{n}" for n in range(600)]


# --- importing ---


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with installed packages in `site-packages`, and own ones in `own`."""
    for place, names in ("site-packages", ("aa_good", "aa_next", "aa_bad")), ("own", ("aa_own",)):
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / f"{name}.py").write_text("raise OSError" if "bad" in name else "")
        monkeypatch.syspath_prepend(tmp_path / place)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "loaded"),
    [
        (("aa_good", "aa_next"), {"aa_good", "aa_next"}),
        (("sys", "email", "aa_next"), {"aa_next"}),
        (("aa_own", "aa_good"), set()),
        (("aa_good", "aa_own", "aa_next"), {"aa_good"}),
        (("aa_good", "aa_missing", "aa_next"), {"aa_good"}),
        (("aa_good", "aa_bad", "aa_next"), {"aa_good"}),
    ],
)
def test_what_is_installed_is_imported_until_one_is_not(
    places: Path, names: tuple[str, ...], loaded: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    scope = scope_of("def f(x):\n    " + "\n    ".join(f"import {name}" for name in names))
    import_ahead(scope["f"])
    assert {name for name in sys.modules if name.startswith("aa_")} == loaded


def test_a_function_of_many_begins_with_what_it_was_told() -> None:
    many = Many()
    assert len(many.__reduce__()) == 2  # as older releases know it
    scope = scope_of(SOURCE)
    functions = [scope["plain"], scope["after_harmless_calls"], functools.partial(standard, 1)]
    many.leading = packages_ahead(functions)
    told = leading_imports(pickle.loads(pickle.dumps(many)))
    assert told == [*ONE, Import("one.two", ()), Import("three", ("four",))]
    assert leading_imports(Many()) == []


def standard(x: int) -> Any:
    import json

    return json, x
