"""Which files the argument `files` names, and under which names they are sent."""

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from burla.shipping import shipped_files
from burla.shipping.shipped_files import dump_files, find_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has some files."""
    place = tmp_path / "here"
    for name in ("a.txt", "folder/b.txt", "folder/deep/c.txt", "folder/empty/"):
        path = place / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(name)
    (tmp_path / "outside.txt").write_text("outside")
    monkeypatch.chdir(place)
    return place


def names(files: Any) -> list[str]:
    return [one.name for one in find_files(files)]


FOLDER = ["folder/", "folder/deep/", "folder/empty/", "folder/b.txt", "folder/deep/c.txt"]


def test_names_are_relative_as_given(here: Path) -> None:
    assert names(None) == []
    assert names("a.txt") == names(Path("a.txt")) == names(["./a.txt"]) == ["a.txt"]
    assert names([here / "a.txt", "folder/../a.txt"]) == ["a.txt"]
    assert names(["folder"]) == names(["folder/"]) == FOLDER
    assert names(".") == [*FOLDER[:3], "a.txt", *FOLDER[3:]]
    assert names({"x/y.txt": here.parent / "outside.txt"}) == ["x/y.txt"]
    assert names({"data": "folder/deep"}) == ["data/", "data/c.txt"]


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        (5, TypeError, "files must be paths .* not 5"),
        (b"a.txt", TypeError, "files must be paths"),
        (["a.txt", 5], TypeError, "5 is not a path"),
        ([""], TypeError, "'' is not a path"),
        ({5: "a.txt"}, TypeError, "5 is not a path"),
        ("gone.txt", FileNotFoundError, "there is no such file or folder: 'gone.txt'"),
        ("../outside.txt", ValueError, "'../outside.txt' is outside of your working directory, /"),
        ("/etc/hosts", ValueError, "name it, as in files="),
        ({"../up": "a.txt"}, ValueError, "'../up' is outside of the job's folder"),
        ({"/etc/up": "a.txt"}, ValueError, "'/etc/up' is outside of the job's folder"),
        ("/dev/null", ValueError, "outside of your working directory"),
        ({"null": "/dev/null"}, ValueError, "'/dev/null' is neither a file nor a folder"),
        ({".": "a.txt"}, ValueError, "a file needs a name"),
        ({"a": "a.txt", "a/b": "a.txt"}, ValueError, "'a' would be a file, and a folder"),
        ({"a": "a.txt", "./a": "folder/b.txt"}, ValueError, "two things would be 'a'"),
        ({"\ud800": "a.txt"}, ValueError, "cannot be the name of a file"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words(
    here: Path, files: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        find_files(files)


def test_a_working_directory_may_be_reached_by_a_link(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = here.parent / "link"
    link.symlink_to(here)
    monkeypatch.chdir(link)
    assert names([link / "folder/b.txt"]) == ["folder/b.txt"]


def test_links_are_followed_but_not_up(here: Path) -> None:
    (here / "folder" / "up").symlink_to("..")
    (here / "folder" / "link").symlink_to("../a.txt")
    (here / "folder" / "broken").symlink_to("gone")
    assert set(names("folder")) == {*FOLDER, "folder/link"}


def test_it_is_bounded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_files, "FILES_BYTES_MAX", 20)
    says = r"these are 29 bytes, at most 20 go with a call; the biggest: folder/deep/c.txt \(17\)"
    with pytest.raises(ValueError, match=says):
        dump_files(find_files("folder"))
    monkeypatch.setattr(shipped_files, "FILES_MAX", 3)
    with pytest.raises(ValueError, match="over 3 files in 'folder'"):
        find_files("folder")


def test_content_and_mode_go(here: Path) -> None:
    os.chmod("a.txt", 0o700)
    sent = dict(dump_files(find_files(["a.txt", "folder/empty", "folder/b.txt"])))
    assert msgpack.unpackb(sent["files"]) == [
        [b"folder/empty/", 0, 0, 0, False],
        [b"a.txt", 0, 0, 5, True],
        [b"folder/b.txt", 0, 5, 12, False],
    ]
    assert sent["files/0"] == b"a.txtfolder/b.txt"
