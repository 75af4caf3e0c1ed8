import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from burla.shipping import modules
from burla.shipping.modules import by_value_modules, environment
from burla.shipping.own_search import STANDARD_PLACES


@pytest.fixture
def module_names() -> Iterator[list[str]]:
    """Names that are taken out of sys.modules afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_the_environment_is_plain_data_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", "/absolute", "/absolute", "b\udcff"])
    told = environment()
    here = os.fsencode(str(tmp_path))
    assert told["path"] == [here, here + b"/lib", b"/absolute", here + b"/b\xff"]
    assert told["directory"] == here
    assert msgpack.unpackb(msgpack.packb(dict(told))) == told


def test_a_working_directory_that_is_gone_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "/absolute"])
    told = environment()
    assert told["directory"] is None
    assert told["path"] == [b"/absolute"]


def test_installed_and_importable_modules_do_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_names: list[str]
) -> None:
    (tmp_path / "burla_test_beside.py").write_text("")
    (tmp_path / "burla_test_package").mkdir()
    (tmp_path / "burla_test_package" / "__init__.py").write_text("")
    (tmp_path / "burla_test_package" / "inner.py").write_text("")
    (tmp_path / "burla_test_space").mkdir()
    (tmp_path / "burla_test_space" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["burla_test_beside", "burla_test_package.inner", "burla_test_space.inner"]
    module_names += [*names, "burla_test_package", "burla_test_space"]
    for name in names:
        __import__(name)
    importable = {"burla", "numpy", "os", "msgpack", *(name.split(".")[0] for name in names)}
    assert not [name for name in by_value_modules() if name.split(".")[0] in importable]


def test_modules_that_no_worker_could_import_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_names: list[str]
) -> None:
    sys.modules["burla_test_made"] = types.ModuleType("burla_test_made")
    module_names += ["burla_test_made", "burla_test_lost"]
    with monkeypatch.context() as patch:
        (tmp_path / "burla_test_lost.py").write_text("")
        patch.syspath_prepend(str(tmp_path))
        __import__("burla_test_lost")
        assert "burla_test_lost" not in by_value_modules()
    assert by_value_modules() >= {"burla_test_made", "burla_test_lost"}


def test_what_stands_for_a_module_is_known_as_itself_and_not_asked_whether_it_is_equal(
    module_names: list[str],
) -> None:
    class Odd(types.ModuleType):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("it compares itself")

    module_names.append("burla_test_odd")
    for _ in range(2):
        sys.modules["burla_test_odd"] = Odd("burla_test_odd")
        assert "burla_test_odd" in by_value_modules()
        assert "burla_test_odd" in by_value_modules()
    sys.modules["burla_test_odd"] = os  # in the same place
    assert "burla_test_odd" not in by_value_modules()


def test_what_shadows_the_standard_library_is_looked_for_before_it_only() -> None:
    library, zipped = (place.rstrip("/") for place in STANDARD_PLACES)
    path = ("/script", zipped, "/late", library, f"{library}/lib-dynload", "/installed")
    assert modules._before_standard(path) == ("/script", "/late")
    assert modules._before_standard(("/script", zipped)) == ("/script",)
