"""Files of the caller are put into the folder of a job once."""

from pathlib import Path

import msgpack
import pytest

from burla.nodelet.worker.shipped_files import put_down


def test_files_are_written_once_and_may_be_changed_by_calls(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    told = [(b"empty/", 0, 0, 0, False), (b"a/b.txt", 0, 2, 4, False), (b"run.sh", 0, 0, 2, True)]
    files = {"files": msgpack.packb(told), "files/0": b"#!text"}
    put_down(files, str(folder))
    assert (folder / "a" / "b.txt").read_text() == "text"
    assert (folder / "empty").is_dir()
    assert (folder / "run.sh").stat().st_mode & 0o100
    (folder / "a" / "b.txt").write_text("changed")
    put_down(files, str(folder))  # another worker of the job
    assert (folder / "a" / "b.txt").read_text() == "changed"


@pytest.mark.parametrize("name", [b"../out", b"/tmp/out", b"a/../../out"])
def test_none_is_written_elsewhere(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ValueError, match="outside of the job's folder"):
        put_down({"files": msgpack.packb([(name, 0, 0, 0, False)])}, str(tmp_path / "job"))
