"""What was packed is there for the next process, and is what it was, or is packed anew."""

import os
from pathlib import Path

import pytest

from burla.shipping import packed_files
from burla.shipping.packed_files import PackedFiles

NAMED = [("packages", b"list"), ("packages/0", b"part" * 100)]
A, B, C = b"a" * 20, b"b" * 20, b"c" * 20


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    PackedFiles(str(tmp_path / "f")).keep(A, NAMED)
    assert PackedFiles(str(tmp_path / "f")).find(A) == NAMED
    assert PackedFiles(str(tmp_path / "f")).find(B) is None


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    PackedFiles(str(tmp_path / "f")).keep(A, NAMED)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "f").iterdir()] == [0o600]


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_what_was_spoilt_on_the_disk_is_not_there(tmp_path: Path, spoil: object) -> None:
    kept = PackedFiles(str(tmp_path))
    kept.keep(A, NAMED)
    (file,) = tmp_path.iterdir()
    assert callable(spoil)
    file.write_bytes(spoil(file.read_bytes()))
    assert kept.find(A) is None
    assert list(tmp_path.iterdir()) == []


def test_the_one_used_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = PackedFiles(str(tmp_path))
    kept.keep(A, NAMED)
    kept.keep(B, NAMED)
    for at_s, key in enumerate((A, B)):
        os.utime(tmp_path / key.hex(), (at_s, at_s))
    assert kept.find(A) == NAMED  # so it is used later than the other
    monkeypatch.setattr(packed_files, "KEPT_BYTES_MAX", 1000)
    kept.keep(C, NAMED)
    assert [kept.find(key) is not None for key in (A, B, C)] == [True, False, True]


def test_what_is_too_much_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_files, "KEPT_BYTES_MAX", 100)
    PackedFiles(str(tmp_path)).keep(A, NAMED)
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = PackedFiles(str(tmp_path / "file/f"))
    kept.keep(A, NAMED)
    assert kept.find(A) is None
