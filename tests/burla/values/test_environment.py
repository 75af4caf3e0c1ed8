"""What a worker does to load the caller's modules anew and soon."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from burla.values import environment


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Behave as a worker without bytecode; return the paths that were compiled."""
    paths: list[str] = []

    def compile_(loader: SourceFileLoader, data: bytes, path: str, **options: int) -> object:
        paths.append(path)
        return compile(data, path, "exec")

    monkeypatch.setattr(SourceFileLoader, "source_to_code", None)  # is set back afterwards
    monkeypatch.setattr(environment, "_compile", compile_)
    monkeypatch.setattr(environment, "_compiled", {})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    environment.compile_once()
    yield paths
    sys.modules.pop("often_loaded", None)


def load() -> ModuleType:
    sys.modules.pop("often_loaded", None)
    importlib.invalidate_caches()
    return importlib.import_module("often_loaded")


def test_a_module_is_compiled_once_and_fresh_each_time(compiled: list[str], tmp_path: Path) -> None:
    path = tmp_path / "often_loaded.py"
    path.write_text("CALLS = []")
    first, second = load(), load()
    first.CALLS.append(1)
    assert second.CALLS == []
    assert compiled == [str(path)]


def test_a_changed_source_is_noticed_whatever_its_file_says(
    compiled: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "often_loaded.py"
    path.write_text("WORD = 1")
    before = path.stat()
    assert load().WORD == 1
    path.write_text("WORD = 2")  # of the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load().WORD == 2
    assert compiled == [str(path)] * 2


def test_the_code_of_many_modules_is_forgotten(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "COMPILED_MAX", 2)
    loader = SourceFileLoader("m", str(tmp_path / "m.py"))
    for name in ("a", "b", "c", "c", "b", "a"):
        loader.source_to_code(b"x = 1", name)
    assert compiled == ["a", "b", "c", "a"]
    monkeypatch.setattr(environment, "COMPILED_BYTES_MAX", 3)
    for _ in range(2):
        loader.source_to_code(b"long = 1", "long")
    assert compiled[4:] == ["long"] * 2


class Listed:
    """A directory on the import path whose listings by imports are counted."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        monkeypatch.syspath_prepend(path)
        monkeypatch.setattr(environment, "_looked_s", time.time())

    def write(self, name: str, changed_s: float) -> None:
        """Write a module; the directory says that this was so many seconds ago."""
        (self.path / f"{name}.py").write_text("")
        then_s = int(time.time()) - changed_s
        os.utime(self.path, (then_s, then_s))

    def has(self, name: str) -> bool:
        """Return whether a next job finds a module there."""
        environment._look_anew()
        return PathFinder.find_spec(name, [str(self.path)]) is not None


def test_a_module_written_right_behind_a_listing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Listed(tmp_path, monkeypatch)
    directory.write("sooner", changed_s=-60)  # not long ago, however slow this machine is
    assert directory.has("sooner")
    directory.write("later", changed_s=-60)  # the same time
    assert directory.has("later")


def test_a_directory_that_is_quiet_is_listed_once_by_a_loop_of_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Listed(tmp_path, monkeypatch)
    directory.write("sooner", changed_s=100)
    assert directory.has("sooner")
    listed: list[str] = []
    list_ = os.listdir

    def note(path: str) -> list[str]:
        listed.append(path)
        return list_(path)

    with monkeypatch.context() as patch:
        patch.setattr("posix.listdir", note)
        assert directory.has("sooner")
        assert not directory.has("later")
    assert listed == []
    directory.write("later", changed_s=50)
    assert directory.has("later")


def test_a_directory_that_is_made_between_two_jobs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Listed(tmp_path / "made", monkeypatch)
    assert not directory.has("sooner")
    directory.path.mkdir()
    directory.write("sooner", changed_s=100)
    assert directory.has("sooner")
