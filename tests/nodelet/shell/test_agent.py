"""A real nodelet with real workers, and a scheduler that says what each test wants."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from raw_scheduler import node
from waiting import wait_gone, wait_until

from burla.protocol import messages as m
from burla.protocol.codec import encode
from burla.protocol.deaths import Death
from burla.protocol.ranges import Ranges

pytestmark = pytest.mark.slow


def double(x: int) -> int:
    return x * 2


def test_jobs_one_after_the_other_in_processes_of_their_own(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        assert scheduler.call(double, [1, 2, 3, 4]) == [2, 4, 6, 8]
        first = set(scheduler.call(lambda x: os.getpid(), [0] * 8))
        assert scheduler.call(str, range(3000)) == [str(x) for x in range(3000)]
        assert not first & set(scheduler.call(lambda x: os.getpid(), [0] * 8))


def test_a_million_tiny_calls(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        assert scheduler.call(double, range(1 << 20)) == list(range(0, 2 << 20, 2))
        seen = Ranges((lo, hi) for said in scheduler.outcomes for lo, hi in said.done)
        assert list(seen) == [(0, 1 << 20)]
        assert sum(hi - lo for said in scheduler.outcomes for lo, hi in said.done) == 1 << 20


def test_thirty_two_workers_run_at_once(tmp_path: Path) -> None:
    def meet(x: int) -> int:
        (tmp_path / f"here{x}").touch()
        while len(list(tmp_path.glob("here*"))) < 32:
            time.sleep(0.01)
        return x

    with node(tmp_path, cpus=32) as (scheduler, _):
        assert scheduler.call(meet, range(32), slots=32) == list(range(32))


def test_quick_inputs_are_not_held_up_by_a_stuck_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait_at_500(x: int) -> int:
        while x == 500 and not gate.exists():
            time.sleep(0.01)
        return x

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(wait_at_500)
        scheduler.deal(lease, range(1000))
        scheduler.wait(lambda: len(scheduler.results) == 999, "all but one")
        gate.touch()
        scheduler.wait(lambda: len(scheduler.results) == 1000, "the last")


def test_big_inputs_and_results_travel_in_pieces(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        inputs = [bytes([n]) * (8 << 20) for n in range(4)]
        assert scheduler.call(lambda x: x[::-1], inputs) == inputs


def test_prints_come_before_the_outcomes_they_belong_to(tmp_path: Path) -> None:
    def show(x: int) -> None:
        print("line", x)
        os.write(2, b"raw\n")

    with node(tmp_path) as (scheduler, _):
        scheduler.call(show, range(500))
        lines = scheduler.output[1].decode().splitlines()
        assert sorted(lines) == sorted(f"line {x}" for x in range(500))
        assert scheduler.output[2] == b"raw\n" * 500


def test_a_print_shows_while_the_call_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def show(x: int) -> None:
        print("now", flush=True)
        while not gate.exists():
            time.sleep(0.01)

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(show)
        scheduler.deal(lease, [1])
        scheduler.wait(lambda: scheduler.output[1] == b"now\n", "the print")
        assert not scheduler.results
        gate.touch()
        scheduler.wait(lambda: len(scheduler.results) == 1, "the result")


def test_much_output_waits_for_the_reader_and_is_complete(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        scheduler.acknowledges = False
        lease = scheduler.start(lambda x: print("x" * 9999), slots=2)
        scheduler.deal(lease, range(1000))
        begun = 2 * 10_000  # lines that two workers have begun count, too, and are not sent
        full = m.LEASE_OUTPUT_WINDOW - begun
        scheduler.wait(lambda: len(scheduler.output[1]) >= full, "a full window")
        scheduler.listen_for(0.3)
        assert len(scheduler.output[1]) < 3 * m.LEASE_OUTPUT_WINDOW
        assert len(scheduler.results) < 1000
        scheduler.say(m.ReplayOutput(b"J" * 16, lease, 0))
        replayed = scheduler.wait_for(m.Output)
        assert (replayed.replay, replayed.number) == (True, 1)
        scheduler.acknowledges = True
        last = [said for said in scheduler.heard if isinstance(said, m.Output)]
        number = max(said.number + len(said.streams) - 1 for said in last)
        scheduler.say(m.AckOutput(lease, number))
        if scheduler.outcomes:
            scheduler.say(m.AckOutcomes(lease, scheduler.outcomes[-1].seq))
        scheduler.wait(lambda: len(scheduler.results) == 1000, "results")
        # All of it, once; a line whose rest is late, as on a very busy machine, goes in parts.
        assert Counter(scheduler.output[1]) == Counter({ord("x"): 9999 * 1000, ord("\n"): 1000})


def test_outcomes_wait_for_acknowledgements(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        scheduler.acknowledges = False
        lease = scheduler.start(lambda x: b"y" * 100_000, outcome_window=1 << 20)
        scheduler.deal(lease, range(200))
        scheduler.wait(lambda: len(scheduler.results) >= 10, "a full window")
        scheduler.listen_for(0.3)
        assert len(scheduler.results) < 100
        scheduler.acknowledges = True
        scheduler.say(m.AckOutcomes(lease, scheduler.outcomes[-1].seq))
        scheduler.wait(lambda: len(scheduler.results) == 200, "results")


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    random = Random(1)

    def work(x: int) -> int:
        time.sleep(0.002)
        return -x

    with node(tmp_path, cpus=4) as (scheduler, nodelet):
        lease = scheduler.start(work, slots=4)
        scheduler.deal(lease, range(2000))
        kills = 0
        while len(scheduler.results) < 2000:
            scheduler.listen_for(0.1)
            assert not scheduler.errors
            victims = nodelet.workers()
            if victims and len(scheduler.results) < 1900:
                kills += 1
                os.kill(random.choice(victims).pid, signal.SIGKILL)
        assert kills > 3
        assert scheduler.results == {x: -x for x in range(2000)}
        assert sum(hi - lo for said in scheduler.outcomes for lo, hi in said.done) == 2000


def test_an_input_that_kills_its_worker_is_named_after_three_deaths(tmp_path: Path) -> None:
    def explode(x: int) -> int:
        if x == 700:
            os._exit(9)
        return x

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(explode)
        scheduler.deal(lease, range(1000))
        scheduler.wait(lambda: bool(scheduler.errors), "the verdict")
        assert scheduler.errors == {700: Death("exit", 9, 3)}
        scheduler.end(lease)
        scheduler.errors.clear()
        assert scheduler.call(double, [4]) == [8]


def test_a_function_that_cannot_be_loaded_is_an_error_of_the_first_input(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return eval, ("1/0",)

    bad = Bad()
    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(lambda x: bad)
        scheduler.deal(lease, range(10))
        scheduler.wait(lambda: bool(scheduler.errors), "the error")
        assert list(scheduler.errors) == [0]
        scheduler.end(lease)
        scheduler.errors.clear()
        assert scheduler.call(double, [4]) == [8]


def test_a_call_that_refuses_to_stop_is_killed_with_all_it_started(tmp_path: Path) -> None:
    def refuse(x: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not os.fork():
            os.setsid()
        (tmp_path / f"pid{os.getpid()}").touch()
        while True:
            time.sleep(1)

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(refuse, slots=2)
        scheduler.deal(lease, range(2))
        wait_until(lambda: len(list(tmp_path.glob("pid*"))) == 4, "four processes")
        alive = [psutil.Process(int(path.name[3:])) for path in tmp_path.glob("pid*")]
        scheduler.end(lease)
        wait_gone(alive, 0.5)
        assert scheduler.call(double, [4]) == [8]


def test_a_cancelled_call_may_clean_up(tmp_path: Path) -> None:
    def tidy(x: int) -> None:
        try:
            (tmp_path / "begun").touch()
            time.sleep(100)
        finally:
            (tmp_path / "tidied").touch()

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(tidy)
        scheduler.deal(lease, [1])
        wait_until((tmp_path / "begun").exists, "the call")
        scheduler.end(lease)
        assert (tmp_path / "tidied").exists()


def test_what_was_not_acknowledged_is_sent_to_a_scheduler_that_comes_back(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, _):
        scheduler.acknowledges = False
        lease = scheduler.start(lambda x: print(x) or x)
        scheduler.deal(lease, range(10))
        scheduler.wait(lambda: len(scheduler.results) == 10, "results")
        scheduler.results.clear()
        scheduler.heard.clear()
        scheduler.restart()
        hello = scheduler.wait_for(m.NodeHello)
        (held,) = hello.held
        assert (held.lease, held.stopped) == (lease, False)
        assert Ranges((x.lo, x.hi) for x in held.spans) == Ranges([(0, 10)])
        scheduler.wait(lambda: len(scheduler.results) == 10, "results again")
        assert any(isinstance(said, m.Output) for said in scheduler.heard)
        scheduler.say(m.EndLease(lease, False))
        scheduler.wait(lambda: m.Stopped(lease) in scheduler.heard, "Stopped")


def test_shed_inputs_are_run_by_nobody_here(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait(x: int) -> int:
        while not gate.exists():
            time.sleep(0.01)
        return x

    with node(tmp_path) as (scheduler, _):
        lease = scheduler.start(wait)
        scheduler.deal(lease, range(100))
        scheduler.say(m.Retract(lease, 90))
        returned = Ranges((x.lo, x.hi) for x in scheduler.wait_for(m.Retracted).spans)
        assert returned.total == 90
        gate.touch()
        scheduler.wait(lambda: len(scheduler.results) == 10, "the rest")
        assert not any(index in returned for index in scheduler.results)


def test_junk_costs_only_itself(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        for junk in ([b""], [b"\xc1"], [b"\xff" * 100, b"x"], encode(m.Stopped(b"L" * 16))):
            scheduler.say_junk(*junk)
        scheduler.say(m.Assign(lease=b"?" * 16, left=0, spans=(), leaves=(), forget=()))
        assert scheduler.call(double, [4]) == [8]
        assert "ignored a frame" in nodelet.log.read_text()


def test_a_nodelet_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        lease = scheduler.start(lambda x: time.sleep(100))
        scheduler.deal(lease, range(10))
        wait_until(lambda: len(nodelet.workers()) >= 2, "workers")
        nodelet.stop()  # checks it


def test_a_nodelet_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        lease = scheduler.start(lambda x: time.sleep(100))
        scheduler.deal(lease, range(10))
        wait_until(lambda: len(nodelet.workers()) >= 2, "workers")
        below = nodelet.processes()
        nodelet.process.kill()
        nodelet.process.wait()
        wait_gone(below)


def test_asked_by_a_signal_it_writes_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path))
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    begun.touch()

    def wait(x: int) -> int:
        with begun.open("a") as file:
            file.write("x")
        while not gate.exists():
            time.sleep(0.01)
        return x

    with node(tmp_path) as (scheduler, nodelet):
        lease = scheduler.start(wait)
        scheduler.deal(lease, range(10))
        wait_until(lambda: len(begun.read_bytes()) == 2, "both workers are in a call")
        nodelet.process.send_signal(signal.SIGUSR2)
        wait_until((tmp_path / "nodelet-state.json").exists, "the state")
        state = json.loads((tmp_path / "nodelet-state.json").read_text())
        assert state["leases"][lease.hex()]["life"]["phase"] == "SERVING"
        assert state["leases"][lease.hex()]["open"] == [[0, 10]]
        gate.touch()
        scheduler.wait(lambda: len(scheduler.results) == 10, "the results")


def test_the_log_says_which_job_follows_another(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        first = scheduler.start(double)
        scheduler.deal(first, [1])
        scheduler.wait(lambda: scheduler.results == {0: 2}, "a result")
        scheduler.say(m.Linger(first))
        second = scheduler.start(str, follows=first, job=b"K" * 16)
        scheduler.wait(lambda: m.Stopped(first) in scheduler.heard, "Stopped")
        scheduler.end(second)
        log = nodelet.log.read_text()
        assert f"{first.hex()} of job 4a4a4a4a: its job is over, and 4b4b4b4b of the same" in log


def test_a_refused_nodelet_ends_and_says_why(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        below = nodelet.processes()
        scheduler.say(m.Refused("install the same version of burla on both"))
        assert nodelet.process.wait(10) == 1
        assert nodelet.log.read_text().splitlines()[-1].endswith("version of burla on both")
        wait_gone(below)


def test_two_hundred_jobs_leak_nothing(tmp_path: Path) -> None:
    with node(tmp_path) as (scheduler, nodelet):
        process = psutil.Process(nodelet.process.pid)

        def run(jobs: int) -> tuple[int, int]:
            for _ in range(jobs):
                assert scheduler.call(str, [4, 5]) == ["4", "5"]
            wait_until(lambda: len(nodelet.workers()) == 4, "two blanks, and two spare ones")
            return process.num_fds(), process.memory_info().rss

        run(20)
        descriptors, memory = run(20)
        later = run(160)
        assert later[0] <= descriptors + 4
        assert later[1] <= memory + (4 << 20)
