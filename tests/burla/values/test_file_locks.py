import os
import subprocess
import sys
from pathlib import Path

import pytest

from burla.values.file_locks import LOCK_EX, LOCK_NB, flock

# What Windows says of a byte that another process has locked, on what lacks fcntl.
ON_WINDOWS = """
import errno, os, sys, types

def locking(file, how, count):
    raise PermissionError(errno.EACCES, "Permission denied")

sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, LK_LOCK=1, LK_UNLCK=0, locking=locking)
sys.modules["fcntl"] = None
sys.platform = "win32"
from burla.resume.checkpoint_files import ResultsFile
from pathlib import Path
print(ResultsFile(Path(sys.argv[1])).try_lock())
"""


def test_a_lock_that_another_has_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as one, path.open("w") as other:
        flock(one.fileno(), LOCK_EX | LOCK_NB)
        with pytest.raises(BlockingIOError):
            flock(other.fileno(), LOCK_EX | LOCK_NB)


def test_a_file_of_results_that_another_run_has_is_told_on_windows_as_well(tmp_path: Path) -> None:
    line = [sys.executable, "-c", ON_WINDOWS, str(tmp_path / "0.results")]
    done = subprocess.run(line, env=os.environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
