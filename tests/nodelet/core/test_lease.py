"""What goes to which worker, from whom is stolen, and what follows from deaths: conversations."""

import pytest
from opening import JOB, LEASE
from outcomes import runs_of
from worker_model import HandNode, assign, ran

from burla.nodelet.core import effects as e
from burla.nodelet.core.events import WorkerState
from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs
from burla.protocol.deaths import Death, decode_death
from burla.protocol.messages import Kind, Run, Span

# --- assigning ---


def test_one_input_loads_one_worker() -> None:
    node = HandNode(cpus=8)
    node.serve(slots=8)
    node.hear(*assign((0, 1)))
    node.finish_all()
    assert node.effects.count(e.LoadWorker()) == 1
    assert ran(node.outcomes()) == [(0, 1)]


def test_as_many_workers_load_as_there_are_inputs_or_slots() -> None:
    node = HandNode(cpus=8)
    node.serve(slots=4)
    node.hear(*assign((0, 3)))
    assert len(node.workers) == 1  # which says how long loading takes
    node.load()
    assert len(node.workers) == 3
    node.hear(*assign((3, 100)))
    assert len(node.workers) == 4


def test_two_inputs_run_at_the_same_time() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.load()
    assert [node.claim(worker) for worker in node.workers.values()] == [(0, 1), (1, 2)]


def test_long_calls_are_assigned_one_at_a_time_and_in_order() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 8)))
    node.finish_all(seconds=0.5)
    assert node.assigned() == [(i, i + 1) for i in range(8)]


def test_a_million_tiny_calls_take_few_messages() -> None:
    node = HandNode()
    node.serve()
    batches = [assign((lo, lo + 65536), batch=lo >> 16) for lo in range(0, 1 << 20, 65536)]
    for message in batches:
        node.hear(*message)
    node.load()
    while node.run(calls=8192, seconds=8192 * 60e-9):
        pass
    assert sum(hi - lo for lo, hi in ran(node.outcomes())) == 1 << 20
    assert len(node.assigned()) < 80


def test_a_dry_worker_takes_what_is_behind_a_stuck_call() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 64)))
    node.load()
    stuck, quick = node.workers.values()
    for _ in range(8):  # calls are known to be short
        node.run(seconds=0.0001)
    assert node.claim(stuck)
    for _ in range(100):
        node.pass_time(0.01)
        if node.claim(quick):
            node.finish(quick, 0.0001)
    node.pass_time(1)
    assert sum(hi - lo for lo, hi in ran(node.outcomes())) == 63
    assert stuck.running is not None


def test_inputs_behind_a_stuck_call_go_back_even_if_nobody_is_dry() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 100_000)))
    node.load()
    stuck, quick = node.workers.values()
    for _ in range(8):
        node.run(calls=10, seconds=1e-5)
    assert node.claim(stuck)
    first = stuck.running
    assert first is not None
    behind = sum(cell.hi - cell.pos for cell in stuck.cells)
    assert behind
    for _ in range(30):
        if node.claim(quick, 100):
            node.finish(quick, 0.01)
    assert sum(cell.hi - cell.pos for cell in stuck.cells) == 0


def test_what_is_retracted_comes_from_the_end_and_was_not_begun() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 10)))
    node.load()
    running = [node.claim(worker) for worker in node.workers.values()]
    assert running == [(0, 1), (1, 2)]
    node.said()
    node.hear(m.Retract(LEASE, 3))
    assert node.said() == [m.Retracted(LEASE, (Span(0, 7, 10),))]
    node.hear(m.Retract(LEASE, 100))
    assert node.said() == [m.Retracted(LEASE, (Span(0, 2, 7),))]
    node.hear(m.Retract(LEASE, 1))
    assert node.said() == [m.Retracted(LEASE, ())]
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2)]


def test_what_is_retracted_is_taken_from_workers_too() -> None:
    node = HandNode()
    node.serve(slots=1)
    node.hear(*assign((0, 40)))
    node.load()
    (worker,) = node.workers.values()
    for _ in range(3):
        node.run(seconds=1e-4)
    node.claim(worker)
    done = worker.cells[0].pos
    assert sum(cell.hi - cell.pos for cell in worker.cells) > 0
    node.said()
    node.hear(m.Retract(LEASE, 1000))
    assert node.said() == [m.Retracted(LEASE, (Span(0, done, 40),))]


def test_work_that_is_known_already_changes_nothing() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 4)))
    node.hear(*assign((0, 4)))
    node.finish_all()
    node.hear(*assign((0, 4)))  # the outcomes are not acknowledged
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize(
    "message",
    [
        (m.Assign(lease=LEASE, left=0, spans=(Span(0, 0, 2),), leaves=(), forget=()), []),
        (m.Assign(lease=LEASE, left=0, spans=(Span(0, 4, 4),), leaves=(), forget=()), []),
        (assign((0, 2))[0], []),
        (m.Retract(b"?" * 16, 5), []),
        (m.AckOutcomes(LEASE, 77), []),
        (m.AckOutput(LEASE, 77), []),
        (m.ReplayOutput(JOB, LEASE, 77), []),
    ],
)
def test_nonsense_is_ignored(message: tuple[m.Message, list[bytes]]) -> None:
    node = HandNode()
    node.serve()
    node.said()
    node.hear(*message)
    assert node.said() == []
    node.hear(*assign((10, 11)))
    node.finish_all()
    assert ran(node.outcomes()) == [(10, 11)]


# --- deaths ---


def test_an_index_that_kills_three_workers_is_named() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 3)))
    deaths = 0
    messages: list[m.Outcomes] = []
    while not any(run.kind is Kind.DEATH for message in messages for run in runs_of(message.runs)):
        node.load()
        for worker in list(node.workers.values()):
            if node.claim(worker) == (1, 2):
                deaths += 1
                node.kill(worker.number, ("exit", 7))
            elif worker.running:
                node.finish(worker)
        messages += node.outcomes()
        assert deaths <= 3
    assert deaths == 3
    last = messages[-1]
    assert runs_of(last.runs)[-1] == Run(1, 2, Kind.DEATH, 1)
    assert decode_death(node.payload[id(last)][-1]) == Death("exit", 7, 3)


def test_the_last_words_of_the_call_are_told_with_its_death() -> None:
    node = HandNode()
    node.serve(slots=1)
    node.hear(*assign((0, 2)))
    messages: list[m.Outcomes] = []
    while not messages:
        node.load()
        (worker,) = node.workers.values()
        if node.claim(worker) == (0, 1):
            node.print(worker.number, 1, b"old\n" * 20)
            node.print(worker.number, 2, b"segfault in \xffoo")
            node.print(worker.number, m.NOTICE, b"ours\n")
            node.kill(worker.number)
        else:
            node.print(worker.number, 1, b"of another call\n")
            node.finish(worker)
        messages = [said for said in node.outcomes() if said.failed]
    words = "\n".join(["old"] * 19 + ["segfault in \ufffdoo"])
    *_, (run, (frame,)) = unpack_runs(messages[0].runs, node.payload[id(messages[0])])
    assert run == Run(0, 1, Kind.DEATH, 1)
    assert decode_death(frame) == Death("signal", 9, 3, last_words=words)


def test_a_death_in_a_stride_of_several_blames_nobody() -> None:
    node = HandNode()
    node.serve(slots=1)
    node.hear(*assign((0, 1000)))
    node.load()
    node.run(seconds=1e-5)
    for _ in range(4):
        node.load()
        (worker,) = node.workers.values()
        lo, hi = node.claim(worker, 10) or (0, 0)
        if hi - lo == 1:
            break  # they are run one by one now
        node.kill(worker.number)
    assert hi - lo == 1
    node.finish(worker)
    node.finish_all(calls=10)
    assert sorted(ran(node.outcomes()))[-1][1] == 1000


def test_outcomes_before_a_death_count() -> None:
    node = HandNode()
    node.serve(slots=1)
    node.hear(*assign((0, 3)))
    node.load()
    node.run()
    (worker,) = node.workers.values()
    node.claim(worker)
    node.kill(worker.number)
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2), (2, 3)]


def test_a_function_that_cannot_be_loaded_is_an_error_of_the_first_input() -> None:
    node = HandNode()
    node.serve()
    (worker,) = node.workers
    node.fail_to_load(worker, [b"why"])
    node.hear(*assign((5, 9)))
    (message,) = node.outcomes()
    assert runs_of(message.runs) == [Run(5, 6, Kind.ERROR, 1)]
    assert node.payload[id(message)] == [b"why"]
    assert node.assigned() == []


def test_a_function_that_kills_whoever_loads_it_is_an_error() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 1)))
    for _ in range(3):
        node.kill(next(iter(node.workers)), ("exit", 1))
    (message,) = node.outcomes()
    assert runs_of(message.runs) == [Run(0, 1, Kind.DEATH, 1)]


def test_copies_that_die_at_once_are_not_made_again_and_blame_nobody() -> None:
    node = HandNode()
    node.serve()
    node.hear(*assign((0, 2)))
    node.load(load_s=1.0)
    (template,) = (w.number for w in node.workers.values() if w.state is WorkerState.TEMPLATE)
    copy = next(worker for worker in node.workers.values() if worker.ready)
    node.claim(copy)
    node.kill(copy.number, ("signal", 11))
    assert e.Kill(template) in node.effects
    assert node.effects.count(e.ForkWorker(template)) == 2
    node.finish_all()
    assert sorted(ran(node.outcomes())) == [(0, 1), (1, 2)]


# --- jobs that go on ---

GOES_ON = m.CallPolicy(goes_on=True)


def kinds_of(said: list[m.Outcomes]) -> set[Kind]:
    return {run.kind for each in said for run in runs_of(each.runs)}


def test_a_call_that_fails_is_an_outcome_of_a_job_that_goes_on() -> None:
    node = HandNode()
    node.serve(policy=GOES_ON)
    node.hear(*assign((0, 6)))
    node.load()
    worker = next(iter(node.workers.values()))
    node.claim(worker)
    node.finish(worker, kind=Kind.ERROR)
    node.finish_all()
    said = node.outcomes()
    assert not any(each.failed for each in said)
    assert sum(hi - lo for lo, hi in ran(said)) == 6
    assert kinds_of(said) == {Kind.ERROR, Kind.RESULTS}


def test_a_death_is_one_as_well() -> None:
    node = HandNode()
    node.serve(slots=1, policy=GOES_ON)
    node.hear(*assign((0, 1)))
    for _ in range(3):
        node.load()
        worker = next(iter(node.workers.values()))
        node.claim(worker)
        node.kill(worker.number)
    node.hear(*assign((1, 2)))
    node.finish_all()
    said = node.outcomes()
    assert not any(each.failed for each in said)
    assert kinds_of(said) == {Kind.DEATH, Kind.RESULTS}


def test_a_function_that_cannot_be_loaded_ends_such_a_job_too() -> None:
    node = HandNode()
    node.serve(policy=GOES_ON)
    node.hear(*assign((0, 6)))
    (loading,) = node.workers
    node.fail_to_load(loading, [b"why"])
    (said,) = node.outcomes()
    assert said.failed
    node.pass_time(1)
    assert not node.outcomes()  # the others are not given up one by one
