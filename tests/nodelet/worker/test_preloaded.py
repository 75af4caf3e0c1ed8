"""What is imported ahead, and whether it is as it was."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from burla.nodelet.worker.preloaded import Lookups, Preloaded, installed_since


def test_only_installed_modules_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = frozenset(sys.modules)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for place, name in ("site-packages", "aa_installed"), ("own", "aa_own"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{name}.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / place)
        importlib.import_module(name)
    assert installed_since(before).names == ["aa_installed"]


def test_a_change_of_a_file_and_of_what_is_installed_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "site-packages"
    package = place / "package"
    package.mkdir(parents=True)
    file = package / "__init__.py"
    file.write_text("")

    def look() -> Preloaded:
        for path in (file, package, place):
            os.utime(path, ns=(0, 0))
        return Preloaded([str(file)], (os.path.join(place, ""),))

    assert not look().has_changed()
    for change in (
        lambda: file.write_text("x"),
        lambda: (package / "more.py").write_text(""),
        lambda: (place / "another").mkdir(),
        lambda: file.unlink(),
    ):
        seen = look()
        change()
        assert seen.has_changed()


def test_names_that_imports_looked_for_are_noted_though_they_were_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    text = "try:\n    import aa_settings.local\nexcept ImportError:\n    pass\n"
    (place / "aa_asks.py").write_text(text)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.syspath_prepend(place)
    looked_for = Lookups()
    with looked_for:
        importlib.import_module("aa_asks")
    importlib.import_module("aa_asks")
    assert looked_for.names == {"aa_asks", "aa_settings"}
    assert looked_for not in sys.meta_path
