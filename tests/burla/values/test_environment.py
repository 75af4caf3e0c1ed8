"""What a worker does to load the caller's modules anew and soon."""

import importlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
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
