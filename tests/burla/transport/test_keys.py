"""Key files: made once, read only where nobody else could have had a hand in them."""

import os
from pathlib import Path

import pytest

from burla.transport.keys import (
    KeyFileError,
    fingerprint,
    load_or_make_pair,
    load_pair,
    make_pair,
    pair_of,
    parse_key,
    read_private,
    write_private,
)


def test_keys_are_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "a.key"
    made = load_or_make_pair(str(path), "a test")
    assert load_or_make_pair(str(path), "another") == made == load_pair(str(path))
    assert pair_of(made.secret) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["a.key"]  # no drafts


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make_pair(str(tmp_path / "d" / "k"), "a test")
    finally:
        os.umask(before)
    load_pair(str(tmp_path / "d" / "k"))


def test_who_comes_second_reads_the_keys_of_the_first(tmp_path: Path) -> None:
    path = str(tmp_path / "k")
    write_private(path, "first", replace=False)
    write_private(path, "second", replace=False)
    assert read_private(path) == "first"
    write_private(path, "third", replace=True)
    assert read_private(path) == "third"


def test_a_secret_is_not_shown() -> None:
    pair = make_pair()
    assert pair.secret.hex() not in repr(pair)
    assert str(pair.secret) not in repr(pair)
    assert fingerprint(pair.public) in repr(pair)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "g" * 64, "Ä" * 64])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parse_key(text)


@pytest.mark.parametrize("content", ["", "00" * 31, f"{'00' * 32}\n{'00' * 32}", "x" * 5000])
def test_a_file_without_a_key_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="k "):
        load_pair(str(path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(KeyFileError, match="not a file"):
            load_pair(str(tmp_path / name))
    with pytest.raises(KeyFileError, match="is not there"):
        load_pair(str(tmp_path / "nothing"))
    with pytest.raises(KeyFileError, match="is not there"):
        load_pair(str(tmp_path / "no" / "thing"))


def test_a_place_where_others_may_write_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open" / "inner"
    place.mkdir(parents=True)
    load_or_make_pair(str(place / "k"), "a test")
    place.parent.chmod(0o777)  # others can move `inner` away
    with pytest.raises(KeyFileError, match="every user can write"):
        load_pair(str(place / "k"))
    place.parent.chmod(0o1777)  # as /tmp is
    load_pair(str(place / "k"))
    place.chmod(0o1777)
    with pytest.raises(KeyFileError, match="every user can write"):
        load_pair(str(place / "k"))
    with pytest.raises(KeyFileError, match="every user can write"):
        write_private(str(place / "new"), "x", replace=True)
