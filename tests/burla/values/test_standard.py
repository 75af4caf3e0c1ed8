"""What a caller's Python has of the standard library is not what another Python imports."""

import os
import sys
from pathlib import Path

import pytest
from elsewhere import call_elsewhere

from burla.values.standard import is_standard, with_ours

OURS = [entry for entry in sys.path if is_standard(entry)]


def another_python(directory: Path) -> list[str]:
    """Return where another Python of this version imports from, installed below a directory."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    library = directory / "lib" / f"python{version}"
    (library / "lib-dynload").mkdir(parents=True)
    (library / "encodings").mkdir()
    for name in ("os.py", "encodings/__init__.py"):
        (library / name).touch()
    (library / "colorsys.py").write_text("def rgb_to_hsv(*rgb): return 'of the caller'")
    zipped = directory / "lib" / f"python{version.replace('.', '')}.zip"
    return [str(zipped), str(library), str(library / "lib-dynload")]


def test_ours_is_where_that_of_another_python_is(tmp_path: Path) -> None:
    assert os.path.dirname(os.__file__) in OURS
    first, last = str(tmp_path / "script"), str(tmp_path / "site-packages")
    expected = (first, *OURS, last)
    assert with_ours([first, *another_python(tmp_path), last]) == expected
    assert with_ours(expected) == expected
    assert with_ours([first, last]) == (first, last)


def test_a_folder_with_an_os_of_its_own_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "os.py").touch()
    assert with_ours([str(tmp_path), *OURS]) == (str(tmp_path), *OURS)


def test_a_function_imports_what_belongs_to_the_python_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(x: float) -> object:
        import colorsys

        return colorsys.rgb_to_hsv(x, x, x)

    others = [entry for entry in sys.path if entry not in OURS]
    monkeypatch.setattr(sys, "path", [*another_python(tmp_path), *others])
    assert call_elsewhere(call, [0.5]) == [(0.0, 0.0, 0.5)]
