"""Modules that only the caller's import hooks find are there in a worker under their names."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import call_elsewhere

from burla.shipping.carried_modules import has_hooks
from burla.shipping.modules import by_value_modules, new_sent

SOURCES = {
    "hooked": """
        import threading
        from . import base
        LOCK = threading.Lock()
        class Thing:
            def __init__(self, x): self.x = x
        class Trouble(Exception): pass
        def use(x): return x + base.ONE
        def use_late(x):
            from . import late
            return late.use(x)
        def fail(x): raise Trouble(x)
    """,
    "hooked.base": "ONE = 1",
    "hooked.late": "from hooked.latest import FACTOR\ndef use(x): return x * FACTOR",
    "hooked.latest": "FACTOR = 100",
    "hooked.named": "WORD = 'named in a text'",
    "hooked_simple": "def use(x): return x * 3",
    "hooked_alone": "import hooked\ndef use(x): return hooked.use(x) * 2",
}


class Store(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules that no file holds."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in SOURCES:
            return None
        return importlib.util.spec_from_loader(name, self, origin=f"store:{name}")

    def is_package(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in SOURCES)

    def get_source(self, name: str) -> str:
        import textwrap

        return textwrap.dedent(SOURCES[name])


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return `sys.meta_path`; what is loaded is forgotten afterwards."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    before = set(sys.modules)
    yield sys.meta_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_a_process_without_hooks_of_its_own() -> None:
    assert not has_hooks()  # pytest's own finds what others find, too
    assert new_sent().carried is None


def test_a_hook_that_has_found_nothing_yet(hooks: list[Any]) -> None:
    hooks.append(Store())
    before = new_sent()
    assert before.carried is not None
    assert before.modules is new_sent().modules is not None  # a pickle may be used again
    importlib.import_module("hooked_alone")
    assert new_sent().modules is None  # now something goes along each time


def test_modules_of_a_finder(hooks: list[Any]) -> None:
    hooks.append(Store())
    hooked, alone = importlib.import_module("hooked"), importlib.import_module("hooked_alone")
    assert call_elsewhere(hooked.use, [1]) == [2]
    assert call_elsewhere(lambda x: hooked.use(x), [1]) == [2]
    assert call_elsewhere(alone.use, [1]) == [4]
    assert not by_value_modules() & SOURCES.keys()


def test_modules_that_are_imported_inside(hooks: list[Any]) -> None:
    hooks.append(Store())
    hooked = importlib.import_module("hooked")
    assert "hooked.late" not in sys.modules
    assert call_elsewhere(hooked.use_late, [1]) == [100]

    def inside(x: int) -> Any:
        from hooked import late  # type: ignore[import-not-found]

        return late.use(x)

    def by_name(x: int) -> Any:
        return importlib.import_module("hooked.named").WORD

    assert call_elsewhere(inside, [2]) == [200]
    assert call_elsewhere(by_name, [2]) == ["named in a text"]
    assert "hooked.late" not in sys.modules  # nothing was run here


def test_values_and_errors_are_of_the_callers_classes(hooks: list[Any]) -> None:
    hooks.append(Store())
    hooked = importlib.import_module("hooked")
    (thing,) = call_elsewhere(lambda thing: hooked.Thing(thing.x + 1), [hooked.Thing(1)])
    assert type(thing) is hooked.Thing
    assert thing.x == 2
    with pytest.raises(hooked.Trouble, match="3"):
        call_elsewhere(hooked.fail, [3])


def test_a_path_hook(hooks: list[Any]) -> None:
    class Entry:
        def __init__(self, path: str) -> None:
            if path != "store://":
                raise ImportError

        def find_spec(self, name: str, target: Any = None) -> Any:
            return Store().find_spec(name)

    sys.path_hooks.append(Entry)
    sys.path.append("store://")
    assert has_hooks()
    simple = importlib.import_module("hooked_simple")
    assert call_elsewhere(lambda x: simple.use(x), [1]) == [3]


def test_code_that_a_loader_changed(hooks: list[Any], tmp_path: Path) -> None:
    (tmp_path / "changed_code.py").write_text("def use(x): return x + 0")
    sys.path.append(str(tmp_path))

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> types.CodeType:
            text = Path(self.path).read_text().replace("+ 0", "+ 1000")
            return compile(text, self.path, "exec")

    class Changing:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            file = str(tmp_path / f"{name}.py")
            loader = Loader(name, file)
            return (
                importlib.util.spec_from_file_location(name, file, loader=loader)
                if name == "changed_code"
                else None
            )

    hooks.insert(0, Changing())
    changed = importlib.import_module("changed_code")
    assert call_elsewhere(changed.use, [1]) == [1001]
    assert call_elsewhere(lambda x: changed.__file__, [1]) == [changed.__file__]


def test_a_finder_that_looks_elsewhere_than_the_path(hooks: list[Any], tmp_path: Path) -> None:
    for place in ("of_hook", "of_path"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "two_places.py").write_text(f"def use(x): return {place!r}")
    sys.path.append(str(tmp_path / "of_path"))

    class Elsewhere:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            file = tmp_path / "of_hook" / f"{name}.py"
            return importlib.util.spec_from_file_location(name, file) if file.exists() else None

    hooks.insert(0, Elsewhere())
    found = importlib.import_module("two_places")
    assert call_elsewhere(found.use, [1]) == ["of_hook"]


def _make_module(name: str) -> Any:
    made = types.ModuleType(name)
    text = "FIVE = 5\ndef use(x): return x + FIVE\ndef lock(x): return LOCK\ndef get(x): return 1"
    exec(text, vars(made))
    made.LOCK = threading.Lock()  # type: ignore[attr-defined]
    sys.modules[name] = made
    return made


def test_a_module_whose_code_nobody_gives_goes_by_value_under_its_name(hooks: list[Any]) -> None:
    made = _make_module("made_by_code")
    assert call_elsewhere(lambda x: made.use(x), [1]) == [6]

    def inside(x: int) -> Any:
        import made_by_code  # type: ignore[import-not-found]

        return made_by_code.use(x), made_by_code.__name__

    assert call_elsewhere(inside, [1]) == [(6, "made_by_code")]
    with pytest.raises(AttributeError, match=r"made_by_code\.LOCK of the caller is not here"):
        call_elsewhere(lambda x: made.LOCK, [1])
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        call_elsewhere(lambda x: made.other, [1])


def test_what_only_says_that_it_is_a_module_is_let_be(hooks: list[Any]) -> None:
    class Library:  # as of cffi
        __slots__ = ()
        __class__ = types.ModuleType  # type: ignore[assignment]

    sys.modules["says_module"] = Library()  # type: ignore[assignment]
    hooks.append(Store())
    assert isinstance(sys.modules["says_module"], types.ModuleType)
    assert "says_module" not in by_value_modules()
    assert call_elsewhere(abs, [-1]) == [1]
