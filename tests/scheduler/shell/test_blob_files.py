"""Blobs on the scheduler's disk, and whose turn it is to be sent some."""

import errno
import os
from pathlib import Path

import pytest

from burla.protocol.fields import BLOBS_MAX
from burla.protocol.messages import BLOB_PIECE_BYTES, BlobPiece
from burla.scheduler.core.blob_table import NUMBER_MAX, TENANT_SHARE
from burla.scheduler.core.effects import KeepBlob, SendBlob
from burla.scheduler.shell import blob_files
from burla.scheduler.shell.blob_files import TURN_BYTES, BlobFiles

MIB = BLOB_PIECE_BYTES
CONTENT = os.urandom(4 * MIB)
LEASE, DIGEST = b"L" * 16, b"D" * 32


class Files:
    """Files, what was sent of them, and what was lost."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, int, bytes]] = []
        self.lost: list[tuple[int, str]] = []
        self.files = BlobFiles(self._send, lambda *what: self.lost.append(what))

    def _send(self, peer: bytes, piece: BlobPiece, data: bytes) -> None:
        self.sent.append((peer, piece.start, data))

    def queue(self, peer: bytes, start: int, stop: int, number: int = 1) -> None:
        self.files.queue(SendBlob(peer, BlobPiece(LEASE, DIGEST, start), number, stop))


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one = Files()
    for at in range(0, len(CONTENT), MIB):
        one.files.keep(KeepBlob(1, at, [CONTENT[at : at + 5], CONTENT[at + 5 : at + MIB]]))
    return one


def nobody(peer: bytes) -> bool:
    return False


def test_all_get_some_in_turn_and_a_bounded_part_a_turn(one: Files) -> None:
    for peer in (b"n1", b"n2"):
        for at in range(0, 3 * MIB, MIB):
            one.queue(peer, at, at + MIB)
    one.files.send_some(nobody)
    assert [(peer, at) for peer, at, _ in one.sent] == [(b"n1", 0), (b"n2", 0)]
    assert sum(len(data) for *_, data in one.sent) <= TURN_BYTES
    while one.files:
        one.files.send_some(nobody)
    assert [at for peer, at, _ in one.sent if peer == b"n1"] == [0, MIB, 2 * MIB]
    assert all(data == CONTENT[at : at + MIB] for _, at, data in one.sent)


def test_who_does_not_read_waits_and_holds_nobody_up(one: Files) -> None:
    one.queue(b"n1", 0, MIB)
    one.queue(b"n2", 0, MIB)
    one.files.send_some(lambda peer: peer == b"n1")
    assert [peer for peer, *_ in one.sent] == [b"n2"]
    one.files.forget(b"n1")
    assert not one.files


def test_what_is_dropped_is_not_sent_and_leaves_nothing(one: Files, tmp_path: Path) -> None:
    one.queue(b"n1", 0, MIB)
    one.files.drop(1)
    assert not one.files
    one.files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_function_is_sent_whole_in_frames_of_the_usual_size(one: Files) -> None:
    frames = one.files.frames_of([1])
    assert b"".join(frames) == CONTENT
    assert {len(frame) for frame in frames} == {MIB}


def test_a_full_disk_is_told(one: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    one.files.keep(KeepBlob(2, 0, [b"x"]))
    ((number, why),) = one.lost
    assert number == 2
    assert why.startswith("No space left on device (")


def test_bytes_that_are_not_there_any_more_are_told(one: Files) -> None:
    one.queue(b"n1", 3 * MIB, 3 * MIB + MIB + 1)
    one.files.send_some(nobody)
    assert [number for number, _ in one.lost] == [1]


def test_the_store_takes_no_more_than_half_of_what_is_free() -> None:
    disk = os.statvfs(blob_files.directory())
    assert 0 < blob_files.room() <= disk.f_bavail * disk.f_frsize


def test_a_part_of_all_descriptors_may_be_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burla.transport.descriptors.limit", lambda: 1024)
    assert BLOBS_MAX * TENANT_SHARE <= blob_files.number_max() < 512
    monkeypatch.setattr("burla.transport.descriptors.limit", lambda: 1 << 30)
    assert blob_files.number_max() == NUMBER_MAX
