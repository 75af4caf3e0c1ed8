"""What code may import is read from its bytecode."""

from textwrap import dedent

import pytest

from burla.values.imports import imports_of


def names(text: str, package: str = "") -> set[str]:
    found = imports_of(compile(dedent(text), "file", "exec"), package)
    return {*found.names, *found.texts}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a", {"a"}),
        ("import a.b as c, d", {"a.b", "d"}),
        ("from a import b, c", {"a", "a.b", "a.c"}),
        ("from a.b import *", {"a.b", "a.b.*"}),
        ("def f():\n    class C:\n        import inside", {"inside"}),
        ("try:\n    import a\nexcept ImportError:\n    a = None", {"a"}),
        ("x = lambda: __import__('named')", {"named"}),
        ("import importlib\nimportlib.import_module('a.b')", {"importlib", "a.b"}),
        ("x = 'no.import'", set()),
    ],
)
def test_all_ways_to_import(text: str, expected: set[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "package", "expected"),
    [
        ("from . import b", "a", {"a", "a.b"}),
        ("from .b import c", "a.x", {"a.x.b", "a.x.b.c"}),
        ("from ..b import c", "a.x", {"a.b", "a.b.c"}),
        ("from ... import c", "a.x", set()),  # beyond the top
        ("from . import b", "", set()),
        ("import importlib\nimportlib.import_module('.b', 'a')", "a", {"importlib", "a.b", "a"}),
    ],
)
def test_relative_ones(text: str, package: str, expected: set[str]) -> None:
    assert names(text, package) == expected


def test_many_names_and_constants() -> None:
    """Where the arguments of instructions take several bytes."""
    text = "\n".join(f"x{i} = {i}.5\nimport m{i}\nfrom p{i} import q{i}" for i in range(300))
    found = names(text)
    assert {"m299", "p299.q299", "p0.q0"} <= found
    assert len(found) == 900


def test_what_only_a_run_would_tell() -> None:
    assert imports_of(compile("import_module(x)", "file", "exec"), "").is_dynamic
    assert imports_of(compile("for m in pkgutil.iter_modules(): 1", "file", "exec"), "").is_dynamic
    assert not imports_of(compile("import a", "file", "exec"), "").is_dynamic
    assert imports_of(compile("import a\ndef f(): return __file__", "f", "exec"), "").asks_for_file
