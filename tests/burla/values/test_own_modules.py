"""A worker never takes another module for the caller's own."""

import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

from burla.values.own_modules import OwnModules, digest, guard_own_modules, machine_id

GONE = b"/burla/test/gone"  # a directory of the caller that is not here


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a worker would end with."""
    before = sys.modules.copy()
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    guard_own_modules(None)
    sys.modules.clear()
    sys.modules.update(before)


def own(
    *texts: tuple[str, str],
    place: bytes = GONE,
    names: tuple[str, ...] = (),
    machine: str = "another",
    complete: bool = True,
) -> OwnModules:
    """Return what a caller says that has modules of these names and texts in `place`."""
    modules = {name: (0, digest(text.encode(), len(text))) for name, text in texts}
    found = os.stat(place) if os.path.exists(place) else None
    return OwnModules(
        machine=machine,
        places=[(place, *((found.st_dev, found.st_ino) if found else (0, 0)))],
        names=[*names, *(name for name, _ in texts)],
        modules=msgpack.packb(modules),
        complete=complete,
    )


def here(directory: Path, **texts: str) -> bytes:
    """Write modules into a directory that is first on the path; return it."""
    for name, text in texts.items():
        file = directory.joinpath(*name.split("__in__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    return os.fsencode(directory)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_standard_library_is_not_the_callers() -> None:
    import statistics as standard

    guard_own_modules(own(("statistics", "WORD = 1")))
    expected = (
        "the caller's own module 'statistics' in /burla/test/gone is not on this node; what this"
        f" node has by that name is another: {standard.__file__}. "
    )
    with pytest.raises(ModuleNotFoundError, match="define what the function needs") as caught:
        import statistics
    assert str(caught.value).startswith(expected)
    assert caught.value.name == "statistics"
    with pytest.raises(ModuleNotFoundError, match="'statistics'"):
        importlib.import_module("statistics")
    with pytest.raises(ModuleNotFoundError, match="'statistics'"):
        pickle.loads(b"cstatistics\nmean\n.")
    guard_own_modules(None)  # the next job's caller has none
    import statistics

    assert statistics.mean([1]) == 1


def test_a_module_inside_a_loaded_package_is_not_left_behind() -> None:
    import email.utils

    guard_own_modules(own(("email", "")))
    with pytest.raises(ModuleNotFoundError, match="'email' in"):
        load("email.utils")
    assert email.utils.quote("x") == "x"  # who has it keeps it


def test_installed_modules_and_those_of_the_node_are_not_the_callers(tmp_path: Path) -> None:
    here(tmp_path, own_utils="WORD = 'of the node'")
    guard_own_modules(own(("numpy", ""), ("own_utils", ""), ("own_nowhere", "")))
    for name in ("numpy", "own_utils"):
        with pytest.raises(ModuleNotFoundError, match="by that name is another: /"):
            load(name)
    with pytest.raises(ModuleNotFoundError, match="'own_nowhere' in /burla/test/gone is not on"):
        load("own_nowhere")


def test_the_same_content_is_the_same_module(tmp_path: Path) -> None:
    here(tmp_path, own_same="WORD = 1", own_pkg__in____init__="", own_pkg__in__old="WORD = 0")
    here(tmp_path, own_pkg__in__same="WORD = 2")
    texts = [("own_same", "WORD = 1"), ("own_pkg", ""), ("own_pkg.same", "WORD = 2")]
    guard_own_modules(own(*texts, ("own_pkg.old", "WORD = 3")))
    assert load("own_same").WORD == 1
    assert load("own_pkg.same").WORD == 2
    with pytest.raises(ModuleNotFoundError, match=r"'own_pkg\.old' in .*own_pkg/old\.py"):
        load("own_pkg.old")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'own_pkg\.none'"):
        load("own_pkg.none")


def test_a_stale_copy_at_the_same_place_is_another_module(tmp_path: Path) -> None:
    place = here(tmp_path, own_copy="WORD = 'old'")
    guard_own_modules(own(("own_copy", "WORD = 'new'"), place=place))
    with pytest.raises(ModuleNotFoundError, match="is another"):
        load("own_copy")


def test_the_very_directory_of_the_caller_is_read_as_it_is_now(tmp_path: Path) -> None:
    place = here(tmp_path, own_here="WORD = 'edited'")
    guard_own_modules(own(("own_here", "WORD = 'before'"), place=place, machine=machine_id()))
    assert load("own_here").WORD == "edited"


def test_what_the_caller_does_not_have_in_its_directory_is_passed_over(tmp_path: Path) -> None:
    texts = {"colorsys": "WORD = 'planted'", "own_planted": "", "own_mine": ""}
    place = here(tmp_path, **texts)
    sys.modules.pop("colorsys", None)
    guard_own_modules(own(("own_mine", ""), place=place))
    assert load("own_mine").__name__ == "own_mine"
    assert not hasattr(load("colorsys"), "WORD")
    with pytest.raises(ModuleNotFoundError, match="is not there on the caller's machine"):
        load("own_planted")


def test_where_too_many_are_to_be_told_the_place_decides(tmp_path: Path) -> None:
    place = here(tmp_path, own_untold="")
    guard_own_modules(own(place=place, names=("own_untold", "own_elsewhere"), complete=False))
    assert load("own_untold").__name__ == "own_untold"
    here(tmp_path / "other", own_elsewhere="")
    with pytest.raises(ModuleNotFoundError, match="'own_elsewhere' is not on this node"):
        load("own_elsewhere")


def test_a_namespace_package_is_told_by_its_modules(tmp_path: Path) -> None:
    here(tmp_path, own_space__in__part="WORD = 1", own_space__in__old="WORD = 0")
    texts = [("own_space.part", "WORD = 1"), ("own_space.old", "WORD = 1")]
    guard_own_modules(own(*texts, names=("own_space",)))
    assert load("own_space.part").WORD == 1
    with pytest.raises(ModuleNotFoundError, match="is another"):
        load("own_space.old")
    here(tmp_path, own_solid__in____init__="")
    guard_own_modules(own(("own_solid.part", ""), names=("own_solid",)))
    with pytest.raises(ModuleNotFoundError, match="is another"):
        load("own_solid")


def test_what_loads_pickles_is_never_the_callers() -> None:
    guard_own_modules(own(("burla", ""), ("cloudpickle", "")))
    assert load("cloudpickle") is sys.modules["cloudpickle"]
    assert load("burla.values.pickling") is sys.modules["burla.values.pickling"]
