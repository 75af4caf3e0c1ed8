import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from burla.nodelet.worker.slate import (
    CELLS,
    NOTES_AT,
    NOTES_BYTES,
    PAGE_BYTES,
    AgentSlate,
    Memory,
    WorkerSlate,
    make_memory,
)

ROOT = Path(__file__).parents[3]
# The whole million takes most of a minute: `python -m perf.steals`, or this variable.
STEALS = int(os.environ.get("BURLA_TEST_STEALS", "20000"))


@pytest.fixture
def slates() -> Iterator[tuple[AgentSlate, WorkerSlate]]:
    memory = Memory(make_memory())
    yield AgentSlate(memory.page(0)), WorkerSlate(memory.page(0))
    memory.close()


def test_a_worker_claims_up_to_the_end_of_its_span(slates: tuple[AgentSlate, WorkerSlate]) -> None:
    agent, worker = slates
    agent.open(3, 10, 20)
    worker.enter(3)
    assert worker.claim(10, 4) == 14
    assert worker.claim(14, 400) == 20
    assert worker.claim(20, 1) == 20
    assert agent.claimed(3) == 20


def test_what_is_claimed_cannot_be_stolen(slates: tuple[AgentSlate, WorkerSlate]) -> None:
    agent, worker = slates
    agent.open(0, 10, 20)
    worker.enter(0)
    assert worker.claim(10, 4) == 14
    assert agent.steal(0, 12) == (14, 20)
    assert worker.claim(14, 4) == 14
    assert agent.steal(0, 11) == (14, 12)  # nothing


def test_a_steal_before_the_span_is_begun_takes_all_of_it(
    slates: tuple[AgentSlate, WorkerSlate],
) -> None:
    agent, worker = slates
    agent.open(1, 10, 20)
    assert agent.steal(1, 10) == (10, 20)
    worker.enter(1)
    assert worker.claim(10, 1) == 10


def test_steals_go_on_from_the_end(slates: tuple[AgentSlate, WorkerSlate]) -> None:
    agent, worker = slates
    agent.open(CELLS - 1, 0, 100)
    assert agent.steal(CELLS - 1, 60) == (60, 100)
    assert agent.steal(CELLS - 1, 30) == (30, 60)
    assert agent.steal(CELLS - 1, 50) == (30, 30)
    worker.enter(CELLS - 1)
    assert worker.hi == 30


def test_a_claim_steps_back_when_the_end_was_lowered_meanwhile(
    slates: tuple[AgentSlate, WorkerSlate], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, worker = slates
    agent.open(0, 0, 100)
    worker.enter(0)
    stolen: list[tuple[int, int]] = []
    words = worker._words

    class Between:
        """Steals just after the claim is published."""

        def __getitem__(self, at: int) -> int:
            return int(words[at])

        def __setitem__(self, at: int, value: int) -> None:
            words[at] = value
            if not stolen:
                stolen.append(agent.steal(0, 3))

    monkeypatch.setattr(worker, "_words", Between())
    assert worker.claim(0, 10) == 3
    assert stolen == [(10, 100)]  # [3, 10) is decided by the frame that says where the worker ended
    assert agent.claimed(0) == 3


def test_the_agent_sees_the_stride(slates: tuple[AgentSlate, WorkerSlate]) -> None:
    agent, worker = slates
    agent.open(5, 10, 20)
    worker.enter(5)
    worker.begin(10, 14)
    assert agent.stride() == (5, 10, 14)


@pytest.mark.slow
def test_two_processes_never_lose_or_double_an_index() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perf.steals", str(STEALS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "none lost, none twice" in done.stdout


def test_notes_outlive_the_worker_and_are_in_order() -> None:
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    agent, worker = AgentSlate(words), WorkerSlate(words)
    worker.begin_notes(5)
    assert worker.note(5, b"five")
    assert worker.note(6, b"")
    assert not worker.note(8, b"a gap")
    assert agent.noted() == (5, 7)
    assert agent.notes() == (5, [b"five", b""])
    worker.begin_notes(7)
    assert agent.notes() == (7, [])


def test_what_has_no_room_is_not_noted() -> None:
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    agent, worker = AgentSlate(words), WorkerSlate(words)
    worker.begin_notes(0)
    assert not worker.note(0, bytes(NOTES_BYTES))
    count = 0
    while worker.note(count, bytes(10)):
        count += 1
    assert count == NOTES_BYTES // 12
    assert agent.notes() == (0, [bytes(10)] * count)


@pytest.mark.parametrize("words_at", [{3: 1 << 40}, {3: -1}, {3: 900}, {3: 2, 4: -7}])
def test_notes_that_make_no_sense_are_none(words_at: dict[int, int]) -> None:
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    agent = AgentSlate(words)
    words[NOTES_AT] = 0x7FFF_7FFF_7FFF_7FFF  # lengths beyond the page
    for at, value in words_at.items():
        words[at] = value
    assert agent.notes()[1] == []


def test_whose_time_is_up_is_told_by_index() -> None:
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    agent, worker = AgentSlate(words), WorkerSlate(words)
    assert not worker.has_expired(0)
    agent.expire(0)
    assert worker.has_expired(0)
    assert not worker.has_expired(1)
    agent.expire(None)
    assert not worker.has_expired(0)
