"""The programs that were moved here: what docs/coming-from.md says of them is so."""

import ast
import re
from pathlib import Path

import pytest

from perf.programs.compare import HERE, changed

PAGE = Path(__file__).parents[2] / "docs/coming-from.md"
NAMES = sorted(path.parent.name for path in HERE.glob("*/theirs.py"))


def test_the_page_lists_each_program_with_the_lines_that_it_takes() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d+) \| (\d+) \|", PAGE.read_text("utf-8"))
    assert len(NAMES) == 15
    said = {name: (int(lines), int(new)) for name, lines, new in rows}
    assert said == {name: changed(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_here_needs_no_other_system_to_run_calls(name: str) -> None:
    tree = ast.parse((HERE / name / "ours.py").read_text())
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "burla" in imported
    assert not {"ray", "dask", "dask.distributed", "multiprocessing"} & imported
