import subprocess
import sys

import pytest

from burla.nodelet.worker.fresh import command


@pytest.mark.parametrize("is_off", [False, True])
def test_what_is_started_writes_bytecode_only_if_this_python_does(
    is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytecode of a module that is changed twice in a second, at the same size, is stale."""
    monkeypatch.setattr(sys, "dont_write_bytecode", is_off)
    options = command("worker", 1).index("-c")
    assert ("-B" in command("worker", 1)[:options]) == is_off


def test_garbage_is_collected_once_all_is_imported() -> None:
    code = "import gc, sys; sys.modules['burla.nodelet.worker.probe'] = sys; sys.main = check"
    line = command("probe")
    program = line.index("-c") + 1
    line[program] = (
        f"def check(words): print(__import__('gc').isenabled())\n{code}\n{line[program]}"
    )
    assert subprocess.run(line, capture_output=True, check=True, text=True).stdout == "True\n"
