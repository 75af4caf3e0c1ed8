"""Where a worker works, and what of its files the caller is told."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import nobody
import pytest

from burla.nodelet.worker import folders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir("/")  # back there at the end
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def test_the_callers_directory_is_entered_where_it_is(tmp_path: Path, folder: Path) -> None:
    assert folders.enter(os.fsencode(tmp_path), str(folder)) is None
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("wanted", [None, b"/not/on/this/machine", b"/etc/passwd"])
def test_the_folder_of_the_job_is_entered_where_it_is_not(
    folder: Path, wanted: bytes | None
) -> None:
    assert folders.enter(wanted, str(folder)) is not None
    assert os.getcwd() == str(folder)


def test_without_a_folder_nothing_changes() -> None:
    before = os.getcwd()
    assert folders.enter(b"/not/on/this/machine", None) is None
    assert folders.enter(b"/not/on/this/machine", "/nor/this") is None
    assert os.getcwd() == before


def test_what_lies_in_a_sandbox_of_the_same_name_is_not_the_callers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "JOB_FOLDER", str(folder))
    assert folders.enter(os.fsencode(folder.parent), str(folder)) is not None
    assert os.getcwd() == str(folder)


@pytest.mark.parametrize("age_s", [0, 60])
def test_the_first_file_that_stays_is_told(folder: Path, age_s: int) -> None:
    (folder / "before").touch()
    one = folders.JobFolder(str(folder))
    assert one.first_file() is None
    (folder / ".cache").touch()
    (folder / "gone").touch()
    (folder / "gone").unlink()
    assert one.first_file() is None
    status = folder.stat()
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns - age_s * 10**9))
    assert one.first_file() is None
    (folder / "out.txt").touch()
    assert one.first_file() == "out.txt"


def test_a_file_written_in_the_same_moment_as_the_last_look_is_seen(folder: Path) -> None:
    one = folders.JobFolder(str(folder))
    just_now = (time.time_ns() + 10**12,) * 2  # of a clock that is coarse, or ahead
    os.utime(folder, ns=just_now)
    assert one.first_file() is None
    (folder / "out.txt").touch()
    os.utime(folder, ns=just_now)
    assert one.first_file() == "out.txt"


def test_a_folder_that_the_function_has_removed_has_nothing(folder: Path) -> None:
    one = folders.JobFolder(str(folder))
    folder.rmdir()
    assert one.first_file() is None


def test_a_notice_is_one_line_whatever_the_name_is() -> None:
    assert folders.notice("a\nb\udcff", "n1").count(b"\n") == 1
    assert b"n1" in folders.notice("a", "n1")


def test_an_error_of_a_relative_path_says_that_the_directory_is_only_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_is_writable", lambda: False)
    errors = [
        OSError(errno.EROFS, "read-only", "out.txt"),
        OSError(errno.EROFS, "read-only", "/out.txt"),
        OSError(errno.ENOENT, "not there", "out.txt"),
        OSError(errno.EACCES, "no name"),
        ValueError("out.txt"),
    ]
    for error in errors:
        folders.explain(error, "n1")
    assert ["n1" in "".join(getattr(error, "__notes__", ())) for error in errors] == [
        True, False, False, False, False,
    ]  # fmt: skip


def test_a_file_that_is_not_on_the_node_has_a_way_to_get_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes(name: object) -> str:
        error = FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        folders.explain(error, "n1")
        return "".join(getattr(error, "__notes__", ()))

    monkeypatch.setenv(folders.VARIABLE, str(folder))
    monkeypatch.chdir(folder.parent)
    assert notes("data.csv") == "", "the caller's directory is here"
    monkeypatch.chdir(folder)
    assert "no 'data.csv' on node n1" in notes("data.csv")
    assert "files=" in notes("/home/anna/data.csv")
    assert notes(None) == notes(b"data.csv") == ""
    assert "own modules" in notes(f"/x/{folders.OWN_MODULES}/data.csv")
    monkeypatch.delenv(folders.VARIABLE)
    assert notes("data.csv") == ""


def test_whether_a_file_could_be_made_is_asked_without_making_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert folders._is_writable()
    assert os.listdir() == []


REMOVE = """
import os, sys, tempfile
from burla.nodelet.worker.folders import remove
base = tempfile.mkdtemp()
os.makedirs(f"{base}/job/shut/deep")
os.symlink("/", f"{base}/job/link")
open(f"{base}/job/shut/deep/file", "w").close()
before = os.stat(base).st_mode
for name in ("shut/deep", "shut", ""):
    os.chmod(f"{base}/job/{name}", 0)
remove(f"{base}/job")
print(os.listdir(base), os.stat(base).st_mode == before)
os.rmdir(base)
"""


def test_what_a_job_has_shut_is_removed_too_and_nothing_around_it_changes() -> None:
    line = [sys.executable, "-c", REMOVE]
    if os.geteuid() == 0:  # who may do anything is stopped by no mode
        line = [sys.executable, nobody.__file__, *line]
    env = os.environ | {"TMPDIR": "/tmp"}
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "[] True\n", done.stderr
