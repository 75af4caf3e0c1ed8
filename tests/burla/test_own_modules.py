"""What a caller says about its own modules."""

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from burla import own_modules
from burla.own_modules import MODULES_MAX, NAMES_BYTES_MAX, REST_FACTOR


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory that is first on the import path; what is loaded is forgotten after."""
    monkeypatch.setattr(own_modules, "_last", None)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def told(place: Path, *by_value: str) -> dict[str, Any]:
    """Return what is said, as of `place` and what comes after it."""
    own_modules._last = None
    path = tuple(sys.path[sys.path.index(str(place)) :])
    said: dict[str, Any] = msgpack.unpackb(
        own_modules.own_modules(path, lambda: frozenset(by_value))
    )
    said["modules"] = msgpack.unpackb(said["modules"])
    return said


def names(place: Path) -> set[str]:
    """Return the modules that are told of those that lie in `place`."""
    said = told(place)
    places = [bytes(one[0]).decode() for one in said["places"]]
    return {name for name, (at, _) in said["modules"].items() if places[at] == str(place)}


def write(place: Path, *files: str, text: str = "") -> None:
    for file in files:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text)


def test_all_that_could_be_imported_is_told_whether_it_is_loaded_or_not(place: Path) -> None:
    write(place, "own_a.py", "own_b/__init__.py", "own_b/c.py", "own_b/d/__init__.py")
    write(place, "own_b/d/e.py", "own_space/f.py", "own_data/table.csv", "no-module.py", "text.txt")
    write(place, "own_both.py", "own_both/inner.py")
    inside = {"own_b", "own_b.c", "own_b.d", "own_b.d.e"}
    assert names(place) == {"own_a", *inside, "own_space.f", "own_both"}
    importlib.import_module("own_b.c")
    importlib.import_module("own_space.f")
    assert names(place) == {"own_a", *inside, "own_space.f", "own_both"}
    assert told(place)["complete"]


def test_a_name_is_own_if_an_import_would_find_it_here(place: Path) -> None:
    write(place, "colorsys.py", "msgpack.py", "sys.py", "os.py", "burla.py", "cloudpickle.py")
    write(place, "json/data.py", "numpy_/x.py")
    sys.modules.pop("colorsys", None)
    assert names(place) == {
        "colorsys",
        "numpy_.x",
    }  # else it is loaded, built in or frozen; or ours
    sys.path.remove(str(place))
    sys.path.append(str(place))
    standard = str(Path(importlib.__file__).parents[1])
    path = (standard, str(place))
    own_modules._last = None
    said = msgpack.unpackb(own_modules.own_modules(path))
    assert "colorsys" not in said["names"]  # the standard one comes first


def test_what_is_installed_into_any_directory_is_not_own(place: Path) -> None:
    write(place, "own_installed.py", "own_installed-1.0.dist-info/METADATA")
    assert told(place)["modules"].keys().isdisjoint({"own_installed"})
    importlib.import_module("own_installed")
    assert "own_installed" not in told(place)["names"]


def test_a_loaded_module_decides_what_its_name_means(place: Path) -> None:
    import colorsys as standard

    write(place, "colorsys.py")
    assert sys.modules["colorsys"] is standard
    assert "colorsys" not in told(place)["names"]


def test_what_is_loaded_from_nowhere_on_the_path_is_told_unless_it_travels(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    far = tmp_path_factory.mktemp("far")
    write(far, "own_far.py")
    spec = importlib.util.spec_from_file_location("own_far", far / "own_far.py")
    assert spec is not None
    sys.modules["own_far"] = importlib.util.module_from_spec(spec)
    assert "own_far" in told(place)["modules"]
    assert "own_far" not in told(place, "own_far")["modules"]


def test_a_module_in_a_zip_file(place: Path) -> None:
    with zipfile.ZipFile(place / "archive.zip", "w") as archive:
        archive.writestr("own_zipped.py", "WORD = 1")
    sys.path.insert(0, str(place / "archive.zip"))
    importlib.import_module("own_zipped")
    assert "own_zipped" in told(place)["modules"]


def test_a_lazy_module_stays_unloaded(place: Path) -> None:
    write(place, "own_lazy.py", text="raise AssertionError('loaded')")
    spec = importlib.util.find_spec("own_lazy")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["own_lazy"] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert "own_lazy" in names(place)
    from burla.modules import by_value_modules

    by_value_modules()
    assert type(module) is not type(sys)


def test_what_is_said_changes_with_the_content_and_is_looked_at_in_proportion(place: Path) -> None:
    write(place, "own_a.py", text="WORD = 1")
    path, now_s = (str(place),), 0.0
    times = iter([0.0, 0.001])

    def clock_s() -> float:
        return next(times, now_s)

    first = own_modules.own_modules(path, clock_s=clock_s)  # takes 1 ms
    write(place, "own_a.py", text="WORD = 2")
    now_s = 0.001 + 0.001 * REST_FACTOR - 1e-6
    assert own_modules.own_modules(path, clock_s=clock_s) is first
    now_s += 2e-6
    second = own_modules.own_modules(path, clock_s=clock_s)
    assert second != first
    assert own_modules.own_modules(path, clock_s=clock_s) is second
    write(place, "own_b.py")  # a new file is seen at once
    third = own_modules.own_modules(path, clock_s=clock_s)
    assert b"own_b" in third
    now_s += 1
    assert own_modules.own_modules(path, clock_s=clock_s) is third  # packed only once, then


def test_it_is_bounded(place: Path) -> None:
    for number in range(MODULES_MAX + 10):
        write(place, f"own_{number}.py")
    said = told(place)
    assert len(said["modules"]) == MODULES_MAX
    assert not said["complete"]
    (place / "own_up").mkdir()
    write(place, "own_up/__init__.py")
    (place / "own_up" / "again").symlink_to(place / "own_up")
    for number in range(200):
        write(place, f"own_{number:0>240}.py")
    said = told(place)
    assert sum(map(len, said["names"])) <= NAMES_BYTES_MAX
