"""Memory of files: written through windows, mapped privately, lent, held without descriptor."""

import fcntl
import gc
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from burla.values import raw_memory
from burla.values.raw_memory import (
    Hold,
    Window,
    address_of,
    address_of_bytes,
    is_as_in_file,
    lend,
    map_privately,
)

SIZE = 5 * mmap.PAGESIZE + 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"a" * SIZE)
    return made


@pytest.fixture
def file(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


def is_locked(path: Path) -> bool:
    with path.open("r+b") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def in_child(work: object) -> int:
    """Return the exit status of a forked child that does `work`."""
    child = os.fork()
    if not child:
        status = 9
        try:
            assert callable(work)
            status = int(work() or 0)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_window_writes_parts_one_behind_the_other(path: Path, file: int) -> None:
    window = Window(file, SIZE)
    window.write([b"one", memoryview(b"-two-"), bytearray(b"three"), b""])
    assert path.read_bytes() == b"one-two-three" + b"a" * (SIZE - 13)
    window.write([memoryview(b"x" * SIZE)])
    assert path.read_bytes() == b"x" * SIZE


def test_a_window_is_never_written_beyond(file: int) -> None:
    with pytest.raises(AssertionError):
        Window(file, SIZE).write([b"b" * SIZE, b"b"])


def test_there_is_no_window_of_more_than_there_is(path: Path, file: int) -> None:
    with pytest.raises(OSError, match="fewer"):
        Window(file, SIZE + 1)
    with path.open("rb") as readable, pytest.raises(OSError, match="cannot map"):
        Window(readable.fileno(), SIZE)


def test_a_window_goes_with_its_last_reference(path: Path, file: int) -> None:
    window = Window(file, SIZE)
    assert str(path) in Path("/proc/self/maps").read_text()
    del window
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_forked_child_does_not_have_a_window_and_may_let_go_of_it(path: Path, file: int) -> None:
    window = [Window(file, SIZE)]

    def is_there() -> int:
        found = str(path) in Path("/proc/self/maps").read_text()
        window.clear()
        gc.collect()
        return found

    assert in_child(is_there) == 0
    window[0].write([b"still"])
    assert path.read_bytes()[:5] == b"still"


def test_what_is_written_to_a_private_mapping_is_seen_and_found_out(path: Path, file: int) -> None:
    region = map_privately(file, SIZE)
    assert is_as_in_file(address_of(region), SIZE)
    assert region[:] == b"a" * SIZE
    assert is_as_in_file(address_of(region), SIZE)
    Window(file, SIZE).write([b"changed"])
    assert region[:7] == b"changed"  # what nobody has written to is the file's
    assert is_as_in_file(address_of(region), SIZE)
    region[SIZE - 1] = 7
    assert not is_as_in_file(address_of(region), SIZE)
    assert path.read_bytes()[-1:] == b"a"
    assert is_as_in_file(address_of(region), mmap.PAGESIZE)
    last = SIZE // mmap.PAGESIZE * mmap.PAGESIZE  # where the page begins that was written to
    assert is_as_in_file(address_of(region) + 100, last - 100)
    assert not is_as_in_file(address_of(region) + 100, last - 99)
    assert not is_as_in_file(address_of(region) + last, 1)
    assert address_of_bytes(memoryview(region).toreadonly()[100:]) == address_of(region) + 100


def test_it_is_not_known_without_a_pagemap(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    region = map_privately(file, SIZE)

    def refuse(*args: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert not is_as_in_file(address_of(region), SIZE)


def test_what_is_lent_is_given_back_when_nothing_refers_to_it(file: int) -> None:
    told: list[int] = []
    region = map_privately(file, SIZE)
    lent = lend(region, 1000, lambda: told.append(1))
    part = lent[10:20]
    assert (len(lent), lent.format, lent.readonly, bytes(part)) == (1000, "B", False, b"a" * 10)
    del lent
    assert told == []
    del part
    assert told == [1]


def test_a_hold_keeps_the_lock_and_no_descriptor(path: Path) -> None:
    with path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        hold = Hold(opened.fileno())
    descriptors = len(os.listdir("/proc/self/fd"))
    assert is_locked(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    hold.end()
    assert not is_locked(path)


def test_a_forked_child_holds_it_for_as_long_as_it_is_there(path: Path) -> None:
    with path.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        hold = Hold(opened.fileno())
    (ours, theirs), child = os.pipe(), os.fork()
    if not child:
        os.close(theirs)
        hold.end()
        os.read(ours, 1)  # until it is closed
        os._exit(0)
    hold.end()
    try:
        assert is_locked(path)
    finally:
        os.close(theirs)
        os.close(ours)
        os.waitpid(child, 0)
    assert not is_locked(path)


def test_what_cannot_be_mapped_is_an_os_error() -> None:
    with pytest.raises(OSError, match="cannot map"):
        map_privately(-1, 100)
    assert raw_memory._c() is raw_memory._c()
