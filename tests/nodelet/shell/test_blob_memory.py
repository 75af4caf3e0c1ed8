"""Blobs in the memory of a node."""

import errno
import mmap
import os

import pytest

from burla.nodelet.core.blobs import IDLE_MAX
from burla.nodelet.core.effects import KeepBlob
from burla.nodelet.shell.blob_memory import BlobMemory, idle_max
from burla.values.shared_memory import map_part


def failed(number: int, why: str, may_pass: bool) -> None:
    raise AssertionError((number, why))


def made(content: bytes) -> BlobMemory:
    memory = BlobMemory(failed)
    memory.keep(KeepBlob(1, 0, [content[:3], content[3:5]]))
    memory.keep(KeepBlob(1, 5, [content[5:]]))
    memory.finish(1)
    return memory


def test_what_was_kept_is_read_and_what_one_writes_nobody_else_sees() -> None:
    (file,) = made(b"0123456789").files([1])
    one, other = (map_part(os.dup(file.fd), 10) for _ in range(2))
    assert bytes(one) == b"0123456789"
    one[0:1] = b"X"
    assert bytes(other) == b"0123456789"
    assert bytes(one) == b"X123456789"


def test_nobody_writes_to_what_is_finished() -> None:
    (file,) = made(b"0123456789").files([1])
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        os.pwrite(file.fd, b"X", 0)
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        os.ftruncate(file.fd, 0)
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        mmap.mmap(file.fd, 10, flags=mmap.MAP_SHARED)
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        os.write(os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR), b"X")


def test_what_is_dropped_is_closed_when_nobody_refers_to_it_any_more() -> None:
    memory = made(b"0123456789")
    (file,) = memory.files([1])
    memory.drop(1)
    with pytest.raises(LookupError):
        memory.files([1])
    fd = file.fd
    os.fstat(fd)
    del file
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_memory_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str, bool]] = []
    memory = BlobMemory(lambda *what: told.append(what))

    def fail(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOMEM, "it is full")

    monkeypatch.setattr(os, "pwrite", fail)
    memory.keep(KeepBlob(7, 0, [b"x"]))
    assert told == [(7, os.strerror(errno.ENOMEM), False)]


def test_what_has_a_hole_is_not_kept_until_it_comes_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, str, bool]] = []
    memory = BlobMemory(lambda *what: told.append(what))

    def fail(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        memory.keep(KeepBlob(7, 0, [b"ab"]))
    assert told == [(7, os.strerror(errno.EMFILE), True)]
    memory.keep(KeepBlob(7, 2, [b"cd"]))
    memory.finish(7)
    with pytest.raises(LookupError):
        memory.files([7])
    memory.keep(KeepBlob(7, 0, [b"ab"]))
    memory.keep(KeepBlob(7, 2, [b"cd"]))
    memory.finish(7)
    (file,) = memory.files([7])
    assert os.pread(file.fd, 9, 0) == b"abcd"


def test_what_is_not_there_shifts_nothing_behind_it() -> None:
    with pytest.raises(LookupError):
        made(b"0123456789").files([7, 1])


def test_a_part_of_all_descriptors_may_be_idle_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burla.transport.descriptors.limit", lambda: 1024)
    assert idle_max() == 256
    monkeypatch.setattr("burla.transport.descriptors.limit", lambda: 1 << 30)
    assert idle_max() == IDLE_MAX
