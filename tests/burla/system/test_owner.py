import os
import subprocess
import sys
from pathlib import Path

import pytest

from burla.system.owner import Owner, remove_directory, this_host
from burla.system.procfs import HAS_PROC, process_started

needs_proc = pytest.mark.skipif(not HAS_PROC, reason="no /proc here")


@pytest.mark.parametrize(
    "owner", [Owner(7), Owner(7, 8), Owner(7, 8, "/tmp/a:b"), Owner(7, None, "/d")]
)
def test_an_owner_is_written_and_read(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "x", "1:x"])
def test_nonsense_is_no_owner(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Owner.parse(text)


@needs_proc
def test_this_process_is_alive_and_one_with_its_id_before_it_is_not() -> None:
    started = process_started(os.getpid())
    assert started is not None
    assert Owner(os.getpid()).alive()
    assert Owner(os.getpid(), started).alive()
    assert not Owner(os.getpid(), started - 1).alive()


@needs_proc
def test_a_process_that_nobody_has_reaped_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert Owner(child.pid).alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not Owner(child.pid).alive()
    assert process_started(child.pid) is None


def test_a_machine_has_one_word() -> None:
    assert this_host() == this_host()
    assert len(this_host()) == 8


def test_a_directory_is_removed_with_what_is_in_it_and_may_be_gone_already(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").write_text("x")
    remove_directory(str(directory))
    assert not directory.exists()
    remove_directory(str(directory))


def test_links_in_a_directory_are_removed_and_not_what_they_lead_to(tmp_path: Path) -> None:
    kept, directory = tmp_path / "kept", tmp_path / "mine"
    kept.mkdir()
    (kept / "file").touch()
    (directory / "deep" / "deeper").mkdir(parents=True)
    (directory / "deep" / "link").symlink_to(kept)
    (directory / "deep" / "deeper" / "broken").symlink_to(tmp_path / "nowhere")
    link = tmp_path / "link"
    link.symlink_to(kept)
    remove_directory(str(directory))
    assert not directory.exists()
    remove_directory(str(link))
    assert (kept / "file").exists()


def test_removing_a_directory_imports_nothing(tmp_path: Path) -> None:
    """It happens at exit, where an `eval`, as in shutil, makes CPython forget about Ctrl-C."""
    line = (
        "import sys; from burla.system.owner import remove_directory as r; n = set(sys.modules); "
    )
    (tmp_path / "x").mkdir()
    line += "r(sys.argv[1]); assert set(sys.modules) == n, set(sys.modules) - n"
    subprocess.run([sys.executable, "-c", line, str(tmp_path / "x")], check=True)
