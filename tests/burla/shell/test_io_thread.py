"""remote_parallel_map over real sockets, against a scheduler of ours in a thread."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, assert_type

import pytest
from fake_scheduler import FakeScheduler, hold_back
from opening import open_job
from waiting import wait_until

from burla import (
    BurlaError,
    ClusterError,
    ClusterUnreachable,
    JobFailed,
    Refused,
    Unsatisfiable,
    WorkerDied,
    remote_parallel_map as rpm,
)
from burla.protocol import messages as m
from burla.shell import clients
from burla.shell.io_thread import IoThread
from burla.shell.job import Job
from burla.transport.client_hello import new_hello
from burla.values.leaves import BATCH_BYTES_MAX, LEAF_INPUTS_MAX
from burla.values.sharing import SharedInputs


def double(x: int) -> int:
    return x * 2


def is_fed(fake: FakeScheduler) -> bool:
    """Return whether the last batch of a job has come."""
    return any(isinstance(said, m.Inputs) and said.total is not None for said in fake.heard)


def test_a_list_comes_back_in_the_order_of_the_inputs(fake: FakeScheduler) -> None:
    assert rpm(double, [3, 1, 2]) == [6, 2, 4]
    assert rpm(double, range(100_000)) == list(range(0, 200_000, 2))
    assert rpm(lambda x: [x], (x for x in "abc")) == [["a"], ["b"], ["c"]]
    assert rpm(pow, [(2, 3), (3, 2)]) == [8, 9]


def test_no_inputs_need_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere")
    empties: tuple[Any, ...] = ([], (), range(0), iter([]))
    for empty in empties:
        assert rpm(double, empty) == []
    assert list(rpm(double, [], generator=True)) == []
    assert list(rpm(double, iter([]), generator=True)) == []


def test_a_generator_starts_at_the_call_and_yields_what_is_complete(fake: FakeScheduler) -> None:
    results = rpm(double, range(10), generator=True)
    wait_until(lambda: is_fed(fake), "inputs are sent before the first next")
    assert list(results) == list(range(0, 20, 2))
    wait_until(lambda: fake.count(m.CloseJob) == 1, "the job is closed")


def test_dropping_or_closing_a_generator_closes_the_job(fake: FakeScheduler) -> None:
    results: Any = rpm(double, count(), generator=True)
    assert next(results) == 0
    results.close()
    wait_until(lambda: fake.count(m.CloseJob) == 1, "close() closes the job")
    never_advanced = rpm(double, count(), generator=True)
    del never_advanced
    gc.collect()
    wait_until(lambda: fake.count(m.CloseJob) == 2, "so does dropping it")


def test_an_endless_iterable_is_fed_within_the_window(fake: FakeScheduler) -> None:
    fake.script = hold_back(m.Inputs)
    pulled, size = 0, 1 << 18

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"x" * size

    window = m.JOB_INPUT_WINDOW // size

    def fail() -> None:
        wait_until(lambda: pulled >= window, "the window is filled")
        wait_until(lambda: fake.count(m.OpenJob) == 1, "the job is open")
        failed = m.JobFailed(next(iter(fake.jobs)), "", "enough")
        fake.do(lambda: fake.send(fake.peers[0], failed))

    thread = threading.Thread(target=fail)
    thread.start()
    with pytest.raises(JobFailed, match="enough"):
        next(rpm(len, endless(), generator=True))
    thread.join()
    assert pulled <= window + BATCH_BYTES_MAX // size + LEAF_INPUTS_MAX


def test_a_generator_acknowledges_what_was_yielded(fake: FakeScheduler) -> None:
    results: Any = rpm(double, range(8), generator=True)
    first = [next(results) for _ in range(8)]
    assert first == list(range(0, 16, 2))
    assert fake.count(m.AckOutcomes) == 0
    assert list(results) == []


def test_the_first_error_is_raised_here_and_closes_the_job(fake: FakeScheduler) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rpm(lambda x: 1 // x, [1, 0, 2])
    assert caught.value.burla_input_index == 1  # type: ignore[attr-defined]  # ours
    wait_until(lambda: fake.count(m.CloseJob) == 1, "the job is closed")
    results = rpm(lambda x: 1 // x, [1, 0, 2], generator=True)
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert rpm(double, [1]) == [2]


def test_errors_of_the_inputs_come_out_as_they_are(fake: FakeScheduler) -> None:
    error = KeyError("mine")

    def inputs() -> Iterator[int]:
        yield from range(1000)
        raise error

    for generator in (False, True):
        with pytest.raises(KeyError) as caught:
            list(rpm(double, inputs(), generator=generator))
        assert caught.value is error
    wait_until(lambda: fake.count(m.CloseJob) == 2, "both jobs are closed")


def test_a_call_whose_worker_died_is_named(fake: FakeScheduler) -> None:
    import msgpack

    def script(fake: FakeScheduler, peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
        if isinstance(message, m.Inputs):
            run = m.Run(1, 2, m.Kind.DEATH, 1)
            frames = [msgpack.packb(["signal", 9, 3])]
            fake.outcomes(peer, fake.jobs[message.job], [(run, frames)])
        return isinstance(message, m.Inputs)

    fake.script = script
    with pytest.raises(WorkerDied, match=r"input 1 = 'b' · node fake.* 3 times.*SIGKILL") as caught:
        rpm(str.upper, ["a", "b"])
    assert caught.value.burla_input_index == 1


def test_what_can_never_run_names_the_argument(fake: FakeScheduler) -> None:
    def script(fake: FakeScheduler, peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
        if isinstance(message, m.OpenJob):
            argument = "func_cpu" if message.func_cpu > 1 else ""
            fake.send(peer, m.JobFailed(message.job, argument, "the biggest node has 4"))
        return isinstance(message, m.OpenJob | m.Inputs)

    fake.script = script
    with pytest.raises(Unsatisfiable, match="func_cpu=99 cannot be satisfied: the biggest node"):
        rpm(double, [1], func_cpu=99)
    with pytest.raises(JobFailed, match="the biggest node has 4"):
        rpm(double, [1])


def test_a_refusal_says_why_and_the_next_call_asks_again(fake: FakeScheduler) -> None:
    def script(fake: FakeScheduler, peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
        if isinstance(message, m.ClientHello):
            fake.send(peer, m.Refused("install the same version"))
        return isinstance(message, m.ClientHello)

    fake.script = script
    with pytest.raises(Refused, match="install the same version"):
        rpm(double, [1])
    fake.script = hold_back()
    assert rpm(double, [1]) == [2]


def test_nobody_at_the_address_is_an_error_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"ipc://{tmp_path}/nobody"
    monkeypatch.setenv("BURLA_CLUSTER", address)
    monkeypatch.setattr("burla.starting.ANSWER_S", 0.1)
    with pytest.raises(ClusterUnreachable, match=address):
        rpm(double, [1])
    clients._clients.pop(address).close()


def test_daemons_that_died_end_the_call_at_once(fake: FakeScheduler) -> None:
    from burla.core.batches import Window
    from burla.core.session import Session
    from burla.shell.caller import Caller
    from burla.values.payloads import HeldFunction, cut_batches, dump_function

    fake.script = hold_back(m.Inputs)
    dead = threading.Event()
    client = IoThread(
        new_hello(), fake.address, lambda silent_s: "killed" if dead.is_set() else None, 8
    )
    session = Session(open_job(os.urandom(16)), dump_function(double), True)
    job = Job(session, client, "double", True)
    threading.Timer(0.1, dead.set).start()
    shared = SharedInputs(None)
    function = HeldFunction(dump_function(double))
    caller = Caller(job, lambda: client, [1], cut_batches([1]), {}, shared, Window(), function)
    with pytest.raises(ClusterError, match="killed"):
        caller.collect()
    client.close()
    assert not client._thread.is_alive()


def test_introduce_makes_the_client_say_all_again(fake: FakeScheduler) -> None:
    forgot = False

    def script(fake: FakeScheduler, peer: bytes, message: m.Message, payload: list[bytes]) -> bool:
        nonlocal forgot
        if isinstance(message, m.Inputs) and not forgot:
            forgot = True
            fake.jobs.clear()
            time.sleep(1.1)  # hellos are at least a beat apart
            fake.send(peer, m.HelloRequired())
            return True
        return False

    fake.script = script
    assert rpm(double, [1, 2]) == [2, 4]
    opened = [message for message in fake.heard if isinstance(message, m.OpenJob)]
    assert [message.resumed for message in opened] == [False, True]


def test_a_scheduler_that_was_started_again_is_told_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = FakeScheduler(tmp_path), FakeScheduler(tmp_path)
    old.script = hold_back(m.Inputs)
    monkeypatch.setenv("BURLA_CLUSTER", old.address)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.extend(rpm(double, range(1000))))
    with old.running():
        thread.start()
        wait_until(lambda: is_fed(old), "all inputs are sent")
    with new.running():
        thread.join()
        clients._clients.pop(new.address).close()
    assert results == list(range(0, 2000, 2))
    opened = [message for message in new.heard if isinstance(message, m.OpenJob)]
    assert [message.resumed for message in opened] == [True]


def test_big_values_travel_in_pieces(fake: FakeScheduler) -> None:
    big = os.urandom(5 << 20)
    assert rpm(lambda x: x + b"!", [big, b""]) == [big + b"!", b"!"]


def test_many_threads_share_one_client(fake: FakeScheduler) -> None:
    results: dict[int, list[int]] = {}

    def call(number: int) -> None:
        results[number] = rpm(double, [number, number + 1])

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [2 * n, 2 * n + 2] for n in range(20)}
    assert fake.count(m.ClientHello) == 1


def test_it_works_inside_a_running_event_loop(fake: FakeScheduler) -> None:
    async def main() -> list[int]:
        return rpm(double, [1, 2])

    assert asyncio.run(main()) == [2, 4]


def test_many_jobs_leave_nothing_behind(fake: FakeScheduler) -> None:
    fake.prints = lambda index: [(1, b"x\n")]

    def held() -> tuple[int, int, int]:
        gc.collect()
        jobs = sum(isinstance(thing, Job) for thing in gc.get_objects())
        return len(os.listdir("/proc/self/fd")), threading.active_count(), jobs // 3

    rpm(double, [1])
    before = held()
    for number in range(200):
        assert rpm(double, [number]) == [2 * number]
    wait_until(lambda: held() == before, f"held is only {before}")
    client = clients._clients[fake.address]
    wait_until(lambda: not client._jobs and not client._output.topics, "the last job is forgotten")


def test_types_of_results_are_inferred(fake: FakeScheduler) -> None:
    results = rpm(double, [1])
    assert_type(results, list[int])
    assert results == [2]
    stream = rpm(double, [1], generator=True)
    assert_type(stream, Iterator[int])
    assert list(stream) == [2]


def test_a_malformed_address_is_an_error_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("localhost", "tcp://host", "ipc://", "burla://x:1", ""):
        monkeypatch.setenv("BURLA_CLUSTER", address)
        with pytest.raises(BurlaError, match=f"BURLA_CLUSTER.*{address}"):
            rpm(double, [1])


def test_bad_arguments_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///nowhere")
    lock = threading.Lock()
    with pytest.raises(TypeError, match="function_"):
        rpm(lambda x: lock, [1])
    with pytest.raises(TypeError, match="input 1 "):
        rpm(double, [1, lock])
    with pytest.raises(ValueError, match="func_cpu"):
        rpm(double, [1], func_cpu=0)
    assert not any(address == "ipc:///nowhere" for address in clients._clients)
