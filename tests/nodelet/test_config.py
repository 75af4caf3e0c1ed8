"""What a nodelet takes for itself where nothing is said."""

import os
import tempfile
from pathlib import Path

import pytest

from burla.nodelet.config import NodeletConfig


def scratch() -> str:
    return NodeletConfig(scheduler="ipc:///tmp/s", cpus=1, ram=1, name="n").scratch


def test_scratch_lies_where_temporary_files_do_and_nothing_is_written_to_find_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = tmp_path.stat().st_mtime_ns
    assert scratch() == str(tmp_path)
    assert tmp_path.stat().st_mtime_ns == before
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not there"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    assert scratch() == tempfile.gettempdir()


def test_with_no_such_place_it_is_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert scratch() == os.getcwd()
