"""Private clusters are found by who looks from outside, if they are of this user and live."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from burla.commands.private_clusters import PrivateCluster, running
from burla.system.owner import Owner, this_host
from burla.system.procfs import process_started


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Yield a process that could have a private cluster."""
    line = [sys.executable, "-c", "print(flush=True); input()", "\x1bword"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has its command line: the kernel sets that while it starts
        yield Owner(process.pid, process_started(process.pid))
        process.communicate()


def directory(base: Path, owner: Owner, host: str, *, listens: bool = True) -> Path:
    made = base / f"burla-{owner.pid}-{owner.started}-{host}-0123abcd"
    made.mkdir()
    if listens:
        (made / "s").touch()
    return made


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bases = [str(tmp_path), "/no/such"]
    monkeypatch.setattr("burla.commands.private_clusters.bases", lambda: bases)
    return tmp_path


def test_one_that_runs_is_found_with_the_program_that_has_it(base: Path, owner: Owner) -> None:
    made = directory(base, owner, this_host())
    (found,) = running()
    assert found == PrivateCluster(f"ipc://{made}/s", os.path.realpath(made), owner)
    assert found.program().endswith("-c print(flush=True); input() ?word")  # no control characters
    assert found.why_gone() is None


def test_others_are_passed_over(base: Path, owner: Owner) -> None:
    directory(base, owner, "00000000")  # of another machine that has this directory, too
    directory(base, Owner(owner.pid, 1), this_host())  # of an earlier process of this number
    assert running() == []
    directory(base, owner, this_host(), listens=False)
    assert running() == []


def test_one_whose_owner_has_ended_says_so(base: Path) -> None:
    gone = PrivateCluster("ipc:///x", "/x", Owner(2**22 - 1, 1))
    assert gone.why_gone() == "process 4194303, whose private cluster it was, has ended"
    assert gone.program() == ""
