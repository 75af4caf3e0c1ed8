"""The memory of big inputs: taken again for the same lease, never for another, nor under a call."""

import errno
import fcntl
import os

import pytest
from set_clock import SetClock

from burla.nodelet.core.effects import KeepBlob
from burla.nodelet.shell.blob_memory import BlobMemory
from burla.nodelet.shell.input_files import FIT_PART, KEPT_MAX, KEPT_PART, KEPT_S, SpareFiles
from burla.values.shared_memory import map_part

SIZE = 100_000
LEASE, OTHER = b"L" * 16, b"M" * 16


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def memory(clock: SetClock) -> BlobMemory:
    def failed(number: int, why: str, may_pass: bool) -> None:
        raise AssertionError((number, why, may_pass))

    made = BlobMemory(failed)
    made.spare = SpareFiles(KEPT_PART * 10 * SIZE, clock)
    made.spare.begin(LEASE, keep=False)
    return made


def put(memory: BlobMemory, number: int, content: bytes, lease: bytes = LEASE) -> int:
    """Keep an input in two pieces; return what its file is known by."""
    half = len(content) // 2
    memory.keep(KeepBlob(number, 0, [content[:half]], lease, len(content)))
    memory.keep(KeepBlob(number, half, [content[half:]], lease, len(content)))
    memory.finish(number)
    (file,) = memory.files([number])
    return os.fstat(file.fd).st_ino


def seen(memory: BlobMemory, number: int, size: int = SIZE) -> memoryview:
    """Return what a worker has of an input that it was sent."""
    (file,) = memory.files([number])
    return map_part(os.dup(file.fd), size)


def test_the_next_input_is_put_where_one_was_that_is_done(memory: BlobMemory) -> None:
    first = put(memory, 1, b"a" * SIZE)
    assert bytes(seen(memory, 1)) == b"a" * SIZE
    memory.drop(1)
    assert put(memory, 2, b"b" * (SIZE - 7)) == first
    assert bytes(seen(memory, 2, SIZE - 7)) == b"b" * (SIZE - 7)


def test_what_a_worker_maps_or_is_sent_stays_as_it_is(memory: BlobMemory) -> None:
    first = put(memory, 1, b"a" * SIZE)
    mapped, unsent = seen(memory, 1), memory.files([1])
    memory.drop(1)
    second = put(memory, 2, b"b" * SIZE)
    assert second != first
    mapped[0:1] = b"X"
    del mapped
    third = put(memory, 3, b"c" * SIZE)
    assert third != first
    assert os.pread(unsent[0].fd, SIZE, 0) == b"a" * SIZE
    unsent.clear()
    assert put(memory, 4, b"d" * SIZE) == first


def test_a_child_of_a_worker_keeps_what_it_maps(memory: BlobMemory) -> None:
    first = put(memory, 1, b"a" * SIZE)
    mapped = seen(memory, 1)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0 if bytes(mapped) == b"a" * SIZE else 1)
    del mapped
    memory.drop(1)
    assert put(memory, 2, b"b" * SIZE) != first
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert put(memory, 3, b"c" * SIZE) == first
    os.close(read)


def test_who_gets_an_input_can_neither_write_to_it_nor_cut_it(memory: BlobMemory) -> None:
    put(memory, 1, b"a" * SIZE)
    (file,) = memory.files([1])
    for change in (
        lambda: os.pwrite(file.fd, b"X", 0),
        lambda: os.ftruncate(file.fd, 0),
        lambda: fcntl.fcntl(file.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(OSError, match=r"\[Errno"):
            change()
    assert os.fstat(file.fd).st_mode & 0o777 == 0o400
    assert bytes(seen(memory, 1)) == b"a" * SIZE


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_another_user_who_gets_an_input_cannot_open_it_to_write(memory: BlobMemory) -> None:
    put(memory, 1, b"a" * SIZE)
    (file,) = memory.files([1])
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR)
        except PermissionError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_lease_gets_nothing_of_it(memory: BlobMemory) -> None:
    first = put(memory, 1, b"a" * SIZE)
    memory.drop(1)
    second = put(memory, 2, b"b" * SIZE, OTHER)  # which comes next
    assert second != first
    memory.drop(2)
    assert len(memory.spare) == 1
    memory.spare.begin(OTHER, keep=False)
    assert len(memory.spare) == 0
    third = put(memory, 3, b"c" * SIZE, OTHER)
    memory.spare.begin(LEASE, keep=False)
    memory.drop(3)  # late
    assert len(memory.spare) == 0
    assert third != put(memory, 4, b"d" * SIZE)


def test_nothing_waits_when_the_workers_of_a_lease_have_ended(memory: BlobMemory) -> None:
    put(memory, 1, b"a" * SIZE)
    put(memory, 2, b"b" * SIZE)
    memory.drop(1)
    memory.spare.end()
    memory.drop(2)
    assert len(memory.spare) == 0


def test_a_lease_that_takes_over_the_processes_takes_over_the_memory(memory: BlobMemory) -> None:
    first = put(memory, 1, b"a" * SIZE)
    memory.drop(1)
    memory.spare.begin(OTHER, keep=True)
    assert put(memory, 2, b"b" * SIZE, OTHER) == first


def test_an_input_leaves_little_of_a_file_empty_and_one_that_was_not_whole_is_not_kept(
    memory: BlobMemory,
) -> None:
    first = put(memory, 1, b"a" * SIZE)
    memory.drop(1)
    assert put(memory, 2, b"b" * (SIZE - SIZE // FIT_PART - 1)) != first
    memory.keep(KeepBlob(3, 0, [b"c" * 10], LEASE, SIZE + 1))
    memory.drop(3)
    assert len(memory.spare) == 1


def test_what_waits_is_bounded_and_the_oldest_go_first(memory: BlobMemory) -> None:
    for number in range(20):
        put(memory, number, bytes(SIZE))
    for number in range(20):
        memory.drop(number)
    assert len(memory.spare) == 10
    put(memory, 21, bytes(5 * SIZE))  # nothing fits: all together have 10 times SIZE
    assert len(memory.spare) == 5
    for number in range(30, 60):
        put(memory, number, bytes(1000))
    for number in range(30, 60):
        memory.drop(number)
    assert len(memory.spare) == KEPT_MAX
    put(memory, 61, bytes(11 * SIZE))
    memory.drop(61)
    assert len(memory.spare) == 0


def test_what_waits_goes_after_a_while(memory: BlobMemory, clock: SetClock) -> None:
    put(memory, 1, bytes(SIZE))
    memory.drop(1)
    clock.now_s += KEPT_S - 1
    memory.spare.drop_old()
    assert len(memory.spare) == 1
    clock.now_s += 2
    memory.spare.drop_old()
    assert len(memory.spare) == 0


def test_without_descriptors_an_input_is_lent_as_it_is_and_not_put_over(
    memory: BlobMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(memory, 1, b"a" * SIZE)

    def fail(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        (file,) = memory.files([1])
    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
        os.pwrite(file.fd, b"X", 0)
    assert os.fstat(file.fd).st_ino == first
    del file
    memory.drop(1)
    assert len(memory.spare) == 0
