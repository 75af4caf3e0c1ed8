"""Scratch directories: each nodelet has its own, and those of the dead are removed."""

import os
import subprocess
import sys
from pathlib import Path

from burla.nodelet.shell.agent import remove_left
from burla.nodelet.shell.launching import SCRATCH, make_scratch
from burla.system.procfs import this_host


def scratch_of_a_dead_one(base: Path) -> Path:
    line = "import sys; from burla.nodelet.shell.launching import make_scratch as make;"
    command = [sys.executable, "-c", f"{line} print(make(sys.argv[1]))", str(base)]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def test_what_is_left_of_the_dead_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine, left, full = (
        Path(make_scratch(str(tmp_path))),
        *(scratch_of_a_dead_one(tmp_path) for _ in range(2)),
    )
    (full / "file").touch()
    remove_left(str(tmp_path))
    assert (mine.exists(), left.exists(), full.exists()) == (True, False, True)


def test_who_is_in_another_container_lives_though_his_process_is_not_seen_here(
    tmp_path: Path,
) -> None:
    left = scratch_of_a_dead_one(tmp_path)
    pid = left.name.removeprefix(SCRATCH).partition("-")[0]
    assert not os.path.exists(f"/proc/{pid}")
    other = left.rename(left.with_name(left.name.replace(this_host(), "0123abcd")))
    remove_left(str(tmp_path))
    assert other.exists()
