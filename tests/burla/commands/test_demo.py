import io
from pathlib import Path

import pytest
from rich.console import Console

from burla.commands.demo import by_package, count, package_of, run_demo, standard_library


def test_a_file_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import os\nfrom a import b\nclass C:\n    async def d(self): pass\n")
    assert count(str(file)) == {"lines": 4, "functions": 1, "classes": 1, "imports": 2}


def test_the_library_is_bounded_and_leaves_tests_out() -> None:
    paths = standard_library(50)
    assert len(paths) == 50
    assert not [path for path in standard_library() if "/test/" in path or "/site-" in path]


def test_sums_are_by_package_and_the_longest_comes_first() -> None:
    paths = [path for path in standard_library() if package_of(path) in ("json", "bisect")]
    counted = {"lines": 10, "functions": 1, "classes": 0, "imports": 2}
    (first, sums), (second, _) = by_package(paths, [counted] * len(paths))
    assert (first, second) == ("json", "bisect")
    assert sums["files"] == len(paths) - 1
    assert sums["imports"] == 2 * sums["files"]


@pytest.mark.slow
def test_the_demo_is_plain_text_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    run_demo(Console(file=out, highlight=False), calls=1_000, files_max=20)
    told = out.getvalue()
    assert "return values: [2, 4, 6, 8]" in told
    assert "1,000 tiny calls" in told
    assert "20 files parsed" in told
    assert "\x1b" not in told
    assert len(told.splitlines()) <= 24 - 4  # with the example's own lines: one screen
    assert "Running remote computer #4 in the cloud!" in capsys.readouterr().out
