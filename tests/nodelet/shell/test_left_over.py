"""What a nodelet leaves that was killed is told from what lives, here or in another container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burla.nodelet.shell import left_over
from burla.nodelet.shell.agent import remove_left
from burla.nodelet.shell.launching import make_scratch
from burla.nodelet.shell.left_over import Place, here, is_left, own_name

MARK = "mark-"


def name_of_a_dead_one() -> str:
    line = f"from burla.nodelet.shell.left_over import own_name; print(own_name({MARK!r}))"
    done = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_what_is_left_is_that_of_who_is_gone() -> None:
    assert is_left(own_name(MARK), MARK) is False
    assert is_left(name_of_a_dead_one(), MARK) is True


def test_after_a_boot_all_from_before_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = own_name(MARK)
    after = Place(here().host, "another boot")
    monkeypatch.setattr(left_over, "here", lambda: after)
    assert is_left(mine, MARK) is True


def test_a_process_of_another_container_is_not_seen_here_and_may_live() -> None:
    outside = name_of_a_dead_one()
    line = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    code = (
        f"from burla.nodelet.shell.left_over import is_left; print(is_left({outside!r}, {MARK!r}))"
    )
    done = subprocess.run([*line, code], check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"


@pytest.mark.parametrize("name", ["", MARK, f"{MARK}1-2", "other-a-b-3-c", f"{MARK}a-b-c-d"])
def test_what_nobody_has_named_so_is_not_known(name: str) -> None:
    assert is_left(name, MARK) is None


def test_scratch_directories_of_the_dead_are_removed_if_nothing_is_in_them(tmp_path: Path) -> None:
    mine = Path(make_scratch(str(tmp_path)))
    left, full = (
        mine.with_name(name_of_a_dead_one().replace(MARK, "burla-node-")) for _ in range(2)
    )
    left.mkdir()
    (full / "deep").mkdir(parents=True)
    remove_left(str(tmp_path))
    assert (mine.exists(), left.exists(), full.exists()) == (True, False, True)
    assert os.listdir(full) == ["deep"]
