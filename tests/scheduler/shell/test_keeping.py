"""Faults of the disk cost a job or a while, and never the scheduler."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from opening import LEASE, PYTHON, client_hello, node_hello, open_job

from burla.protocol import messages as m, store_messages as sm
from burla.protocol.store_messages import StoredState
from burla.protocol.stored_records import pack
from burla.scheduler.core.lease import LeaseState
from burla.scheduler.core.scheduler import Scheduler
from burla.scheduler.core.store_limits import Limits
from burla.scheduler.shell import keeping as module
from burla.scheduler.shell.keeping import Keeping
from burla.scheduler.shell.store_files import StoreFiles
from burla.scheduler.shell.store_reading import StoreReading
from burla.scheduler.store.effects import LoadBatch, LoadBlob, LoadPieces, ReadPart, Recheck

JOB, PEER = b"J" * 16, b"p" * 16
FACTS = sm.StoredJob(JOB, "f", StoredState.DONE, 1, 1, 1, 0, 0, 0, 0, "", "", None)


class Stage:
    """A scheduler's keeping; what is said to clients is kept."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 0.0
        self.core = Scheduler(bytes(16), "0", "pub")
        self.keeping = Keeping(directory, Limits(), self.core, lambda _: [""], lambda: self.now_s)
        self.said: list[object] = []
        self.woken = asyncio.Event()
        self.keeping.begin(self.said.extend, self.woken.set)

    async def turn_until(self, is_so: Callable[[], bool], step_s: float = 0.0) -> None:
        """Let it turn, each time so much later."""
        async with asyncio.timeout(20):
            while not is_so():
                await self.woken.wait()
                self.woken.clear()
                self.now_s += step_s
                self.keeping.turn()


def test_reads_that_fail_are_logged_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    for name in ("load_batch", "load_blob", "read_part", "look_again"):
        monkeypatch.setattr(StoreReading, name, fail)

    async def play() -> None:
        (tmp_path / "jobs").mkdir()
        stage = Stage(tmp_path)
        stage.core.receive(PEER, client_hello(), [], 0.0)
        stage.keeping._carry_out(
            [
                LoadBatch(JOB, 0, 0, 0, 9),
                LoadBlob(JOB, "ann", b"D" * 32, 0, 9),
                ReadPart(PEER, sm.ReadStored(JOB, 0, 0), (0, 9), FACTS),
                Recheck(JOB),
            ]
        )
        stage.keeping.turn()
        await stage.turn_until(lambda: caplog.text.count("Too many open files") == 4)
        assert stage.said == []  # who reads is not told that there is nothing
        monkeypatch.undo()
        stage.now_s += module.ROOM_S
        stage.keeping.turn()
        stage.keeping.turn()
        await stage.turn_until(lambda: bool(stage.said), module.ROOM_S)  # a look may be under way
        (sent,) = stage.said
        assert isinstance(sent.message, sm.StoredPart)  # type: ignore[attr-defined]
        assert sent.message.is_all  # type: ignore[attr-defined]
        stage.keeping.close()

    asyncio.run(play())


def test_parts_of_an_input_are_read_in_the_order_in_which_they_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out of order is lost, and comes again only after 20 s."""
    begun, read = threading.Event(), list[int]()

    def load(_: object, what: LoadPieces) -> list[int]:
        if what.first:
            begun.set()
        else:
            begun.wait(0.2)  # where several read at once the second one is ahead
        return [what.first]

    def loaded(_: bytes, first: int) -> list[object]:
        read.append(first)
        return []

    async def play() -> None:
        stage = Stage(tmp_path)
        stage.keeping._open()
        monkeypatch.setattr(stage.keeping._keeper, "pieces_loaded", loaded)
        for first in range(2):
            wanted = m.InputWanted(LEASE, JOB, 0, 0, 0, first, first + 1)
            stage.keeping._carry_out([LoadPieces(JOB, wanted, first, ())])
        await stage.turn_until(lambda: len(read) == 2)
        stage.keeping.close()

    monkeypatch.setattr(StoreReading, "load_pieces", load)
    asyncio.run(play())
    assert read == [0, 1]


def write_down(directory: Path) -> None:
    """Let a job of two inputs be in a store."""
    folder = directory / "jobs" / JOB.hex()
    folder.mkdir(parents=True)
    leaves = (m.Leaf(batch=0, start=0, count=2, frames=1),)
    records = [
        (sm.StoreOpened(JOB, "", "", PYTHON, "u", "h", 1.0), []),
        (open_job(JOB, detached=b""), [b"function"]),
        (m.Inputs(job=JOB, batch=0, start=0, leaves=leaves, total=2), [b"inputs"]),
    ]
    parts = [part for said, payload in records for part in pack(said, payload)]
    (folder / "inputs-0.log").write_bytes(b"".join(parts))


@pytest.mark.parametrize("days", [0, 1])
def test_nodes_go_on_with_a_job_that_takes_long_to_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """What they run of it is not run again; but nobody waits for ever for a disk that hangs."""
    write_down(tmp_path)
    real, may_read = StoreReading.jobs, threading.Event()

    def jobs(self: StoreReading) -> list[bytes]:
        assert may_read.wait(20)
        return real(self)

    monkeypatch.setattr(StoreReading, "jobs", jobs)

    async def play() -> None:
        stage = Stage(tmp_path)
        held = m.Held(LEASE, JOB, 2, (m.Span(0, 0, 2),), stopped=False)
        stage.core.receive(b"n" * 16, node_hello(held=(held,)), [], 0.0)
        for _ in range(60):
            stage.now_s += 1.0 + days * 86400
            stage.core.note_heard(b"n" * 16, stage.now_s, "")
            stage.keeping.turn()
            stage.core.expire(stage.now_s)
        may_read.set()
        with_core = stage.keeping._keeper.state.with_core
        await stage.turn_until(lambda: bool(with_core))
        state = stage.core.state.leases[LEASE].state
        assert state is (LeaseState.STOPPING if days else LeaseState.ACTIVE)
        stage.keeping.close()

    asyncio.run(play())


def test_jobs_that_cannot_be_listed_are_listed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, fails = StoreReading.jobs, [True]

    def jobs(self: StoreReading) -> list[bytes]:
        if fails.pop() if fails else False:
            raise OSError(5, "Input/output error")
        return real(self)

    monkeypatch.setattr(StoreReading, "jobs", jobs)

    async def play() -> None:
        (tmp_path / "jobs").mkdir()
        stage = Stage(tmp_path)
        await stage.turn_until(lambda: "Input/output error" in caplog.text)
        stage.keeping.turn()
        assert stage.keeping._is_finding
        stage.now_s += 2 * module.AGAIN_S
        stage.keeping.turn()
        await stage.turn_until(lambda: not stage.keeping._is_finding)
        stage.keeping.close()

    asyncio.run(play())


def test_a_store_that_another_scheduler_has_is_tried_again_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = StoreFiles(tmp_path, lambda: None)

    async def play() -> None:
        stage = Stage(tmp_path)
        assert "another scheduler keeps" in caplog.text
        other.close()
        stage.keeping.turn()
        assert stage.keeping._files is None
        stage.now_s += 2 * module.AGAIN_S
        stage.keeping.turn()
        assert stage.keeping._files is not None
        await stage.turn_until(lambda: not stage.keeping._is_finding)
        stage.keeping.close()

    asyncio.run(play())
