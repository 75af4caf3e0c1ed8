"""What a caller packed lies nowhere but in its folder, is all there, and is bounded."""

import os
import zlib
from pathlib import Path

import pytest

from burla.nodelet.shell.blob_memory import BlobFile
from burla.nodelet.worker import putting_down
from burla.values.own_modules import OwnFile, OwnModules, pack_own_modules, platform

CONTENT = b"V = 1\n"


def write(
    place: Path, path: str, size: int = len(CONTENT), content: bytes = CONTENT, built: str = ""
) -> None:
    own = OwnModules(
        name="ab" * 16,
        platform=built or platform(),
        files=[OwnFile(os.fsencode(path), b"", 0, 0, size, False)],
        packed=[True],
        tops=[],
        archives=[],
        extensions=["x"],
        refused={},
    )
    words, files = [], []
    for one in (pack_own_modules(own), zlib.compress(content)):
        files.append(BlobFile())
        os.pwrite(files[-1].fd, one, 0)
        words.append(f"{files[-1].fd}:{len(one)}")
    putting_down.main([str(place / "new"), *words])


def test_files_are_there_and_nobody_can_write_to_them(tmp_path: Path) -> None:
    write(tmp_path, "a/b.py")
    file = tmp_path / "new/a/b.py"
    assert file.read_bytes() == CONTENT
    for one in (file, file.parent, file.parent.parent):
        assert one.stat().st_mode & 0o777 in (0o444, 0o555)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a\0b", "", "."])
def test_nothing_lies_elsewhere(tmp_path: Path, path: str) -> None:
    with pytest.raises(SystemExit):
        write(tmp_path, path)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "x").exists()


def test_what_is_not_all_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not all there"):
        write(tmp_path, "a.py", size=100)


def test_what_swells_is_read_no_further_than_it_says(tmp_path: Path) -> None:
    write(tmp_path, "a.py", content=CONTENT + bytes(100 << 20))
    assert (tmp_path / "new/a.py").read_bytes() == CONTENT


def test_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="too much"):
        write(tmp_path, "a.py", size=putting_down.BYTES_MAX + 1)


def test_another_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="built for mars"):
        write(tmp_path, "a.py", built="mars")
