"""Real workers: how they are made, how they die, and that nothing of them stays."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from machine import Death, gone, leaves_of, machine, poll, run, slow_to_load

from burla.protocol.messages import NOTICE
from burla.values import payloads

pytestmark = pytest.mark.slow


def pid_of(x: int) -> int:
    return os.getpid()


# --- making workers ---


def test_thirty_two_workers_share_a_job() -> None:
    async def main() -> None:
        async with machine(4) as m:
            got = await m.run(lambda x: (x, __import__("os").getpid()), range(640), 32)
            assert [x for x, _ in got] == list(range(640))
            assert len({pid for _, pid in got}) == 32

    run(main())


def test_a_function_that_is_slow_to_load_is_loaded_once() -> None:
    async def main() -> None:
        async with machine(2) as m:
            ids = await m.lease(slow_to_load(lambda x: __import__("random").random()), 4)
            assert m.load_s == [0] * 4
            leaves = leaves_of(range(4))
            for at, worker in enumerate(ids):
                m.assign(worker, at, at + 1, leaves)
            await m.until(lambda: len(m.settled) == 4)
            assert len(set(m.results().values())) == 4  # each has random numbers of its own
            m.workers.kill(ids[0])
            await m.until(lambda: len(m.deaths) == 1)
            assert m.deaths[0][1].how == ("signal", signal.SIGKILL)
            m.add_workers(1)
            await m.until(lambda: len(m.ready) == 5)
            assert m.load_s[-1] == 0
            await m.workers.end_lease()

    run(main())


def test_numpy_is_imported_once_and_its_random_numbers_differ() -> None:
    def call(x: int) -> float:
        import numpy

        return float(numpy.random.random())

    import numpy

    def load() -> Any:
        array = numpy.zeros(3)
        return lambda x: call(x) + array[0]

    async def main() -> None:
        async with machine(1) as m:
            ids = await m.lease(load(), 8)
            leaves = leaves_of(range(8))
            for at, worker in enumerate(ids):
                m.assign(worker, at, at + 1, leaves)
            await m.until(lambda: len(m.settled) == 8)
            assert len(set(map(float, m.results().values()))) == 8

    run(main())


def test_without_template_each_worker_loads() -> None:
    async def main() -> None:
        async with machine(1) as m:
            await m.lease(slow_to_load(lambda x: x), 3, use_template=False)
            assert min(m.load_s) >= 0.05

    run(main())


def test_a_template_can_be_dropped() -> None:
    async def main() -> None:
        async with machine(1) as m:
            await m.lease(slow_to_load(lambda x: x), 2)
            m.drop_template()
            m.add_workers(1)
            await m.until(lambda: len(m.ready) == 3)
            assert m.load_s[2] >= 0.05
            assert not m.deaths

    run(main())


def test_copies_that_die_with_their_template_are_nobodys_deaths() -> None:
    async def main() -> None:
        async with machine(1) as m:
            ids = await m.lease(slow_to_load(lambda x: x), 2)
            m.add_workers(6)
            m.drop_template()  # with its orders to fork unread
            await m.until(lambda: len(m.ready) == 8)
            # one that had just said that it was there may still be below the template, and die
            assert all((death.lost, death.running) == ((), None) for _, death in m.deaths)
            assert len(set(m.ready)) == 8
            assert m.ready[:2] == ids

    run(main())


def test_a_copy_that_is_ready_outlives_its_template() -> None:
    class HoldsParents:
        """Keeps each process that forks, but for the template, above what it has forked."""

        def __reduce__(self) -> Any:
            code = (
                "import os, signal, time; time.sleep(0.05); template = os.getpid(); "
                "hold = lambda: os.getpid() == template or signal.pause(); "
                "os.register_at_fork(after_in_parent=hold)"
            )
            return exec, (code, {})

    holds_parents = HoldsParents()

    async def main() -> None:
        async with machine(1) as m:
            m.begin(lambda x: (holds_parents, os.getpid())[1])
            m.add_workers(2)
            await m.until(lambda: len(m.ready) == 1)
            m.drop_template()
            await m.until(lambda: len(m.ready) == 2)
            assert not m.deaths
            m.assign(m.ready[0], 0, 1, leaves_of(range(1)))
            await m.until(lambda: len(m.settled) == 1)

    run(main())


def test_a_function_with_threads_is_never_forked() -> None:
    class Threads:
        def __reduce__(self) -> Any:
            code = (
                "import threading, time; time.sleep(0.05); "
                "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
            )
            return exec, (code,)

    threads = Threads()

    async def main() -> None:
        async with machine(1) as m:
            await m.lease(lambda x: threads, 2)
            assert min(m.load_s) >= 0.05

    run(main())


def test_blanks_are_kept_and_a_lease_gets_fresh_ones() -> None:
    async def main() -> None:
        async with machine(2) as m:
            seen: set[int] = set()
            for _ in range(3):
                seen.update(await m.run(pid_of, [0, 1], 2))
                m.outcomes.clear()
            assert len(seen) == 6

    run(main())


def test_a_function_that_cannot_be_loaded_says_why() -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    broken = Broken()

    async def main() -> None:
        async with machine(1) as m:
            m.begin(lambda x: broken)
            m.add_workers(2)
            await m.until(lambda: bool(m.load_failures))
            failure = payloads.load_error(m.load_failures[0])
            assert isinstance(failure.exception, ValueError)
            await m.workers.end_lease()
            # a worker that could not load ends by itself, before it is told to or not
            assert all(not death.lost and death.running is None for _, death in m.deaths)

    run(main())


# --- deaths ---


async def _death(function: Callable[[int], Any], inputs: int, **how: Any) -> tuple[Any, Death]:
    async with machine(1) as m:
        (worker,) = await m.lease(function, 1)
        m.assign(worker, 0, inputs, leaves_of(range(inputs)), **how)
        await m.until(lambda: bool(m.deaths))
        return m, m.deaths[0][1]


def test_a_death_blames_the_index_that_ran_and_returns_the_rest() -> None:
    def call(x: int) -> int:
        import os
        import signal

        print("last words", end="", flush=True)
        if x == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        return x

    m, death = run(_death(call, 10, careful=True))
    assert death == Death(("signal", signal.SIGSEGV), True, ((5, 10),), (5, 6))
    assert m.results() == {x: x for x in range(5)}
    assert bytes(m.output[1]) == b"last words" * 6
    assert m.told[-1] == "death"


def test_a_death_in_a_stride_of_several_blames_nobody() -> None:
    def call(x: int) -> int:
        import os

        if x == 3000:
            os._exit(3)
        return x

    m, death = run(_death(call, 6000))
    assert death.how == ("exit", 3)
    ((lo, hi),) = death.lost
    assert (lo, hi) == (len(m.results()), 6000)
    assert death.running is not None
    assert lo <= death.running[0] <= 3000 < death.running[1]
    assert death.running[1] - death.running[0] > 1


def test_a_death_between_calls_blames_nobody() -> None:
    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(lambda x: x, 1)
            m.assign(worker, 0, 3, leaves_of(range(3)))
            await m.until(lambda: len(m.settled) == 1)
            m.workers.kill(worker)
            await m.until(lambda: bool(m.deaths))
            assert m.deaths[0][1] == Death(("signal", signal.SIGKILL), True, (), None)

    run(main())


def test_spans_that_were_queued_are_lost_with_their_worker(tmp_path: Path) -> None:
    def call(x: int) -> int:

        time.sleep(600)
        return x

    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(call, 1)
            leaves = leaves_of(range(100))
            first = m.assign(worker, 0, 10, leaves)
            second = m.assign(worker, 10, 90, leaves)
            assert m.steal(worker, second, 50) == (50, 90)
            await poll(lambda: m.progress(worker, first) != (0, 10))
            m.workers.kill(worker)
            await m.until(lambda: bool(m.deaths))
            death = m.deaths[0][1]
            assert death.lost == ((0, 10), (10, 50))
            assert death.running == (0, 1)

    run(main())


def test_what_a_worker_started_dies_with_it(tmp_path: Path) -> None:
    def call(path: str) -> int:
        import os

        child = subprocess.Popen(["sleep", "600"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        os.rename(path, path + ".done")
        time.sleep(600)
        return 0

    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 1, leaves_of([str(tmp_path / "pid")]))
            done = tmp_path / "pid.done"
            await poll(done.exists)
            m.workers.kill(worker)
            await m.until(lambda: bool(m.deaths))  # though the child held the pipes open
            await gone(int(done.read_text()))

    run(main())


def test_a_daemon_that_left_its_session_ends_with_the_lease(tmp_path: Path) -> None:
    def call(x: int) -> int:
        import os

        ours, theirs = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if (pid := os.fork()) != 0:
                os.write(theirs, str(pid).encode())
                os._exit(0)
            for fd in (0, 1, 2):
                os.close(fd)
            __import__("time").sleep(600)
        return int(os.read(ours, 100))

    async def main() -> None:
        scratch = tmp_path / "scratch"
        (scratch / "deep" / "down").mkdir(parents=True)
        (scratch / "file").write_text("x")
        async with machine(1, scratch) as m:
            (pid,) = await m.run(call, [0], 1)
            assert not psutil.pid_exists(pid)
            assert list(scratch.iterdir()) == []
        assert not scratch.exists()

    run(main())


@pytest.mark.parametrize("junk", ["close", "scribble"])
def test_a_worker_that_breaks_its_pipe_is_ended(junk: str) -> None:
    def call(x: int) -> int:
        import os
        import socket

        for fd in range(3, 2000):
            try:
                if junk == "close":
                    os.close(fd)
                else:
                    socket.socket(fileno=fd).send(b"junk" * 100)
            except OSError:
                continue
        time.sleep(600)
        return x

    _, death = run(_death(call, 4))
    assert death.how == ("signal", signal.SIGKILL)
    assert death.running == (0, 1)


def test_an_interrupted_call_raises_keyboard_interrupt() -> None:
    def call(x: int) -> int:

        print("in it")
        time.sleep(600)
        return x

    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 1, leaves_of([0]))
            await m.until(lambda: bool(m.output[1]))
            m.workers.signal(worker, signal.SIGINT)
            await m.until(lambda: bool(m.settled))
            assert isinstance(m.results()[0].exception, KeyboardInterrupt)

    run(main())


def test_a_lease_ends_while_its_workers_are_still_made() -> None:
    async def main() -> None:
        async with machine(1) as m:
            m.begin(slow_to_load(lambda x: x))
            m.add_workers(4)
            await asyncio.sleep(0.06)
            await m.workers.end_lease()
            assert await m.run(lambda x: x, [1, 2], 2) == [1, 2]

    run(main())


def test_what_was_written_is_told_when_all_ends_amid_a_lease(tmp_path: Path) -> None:
    def call(path: str) -> str:
        open(path, "w").close()
        if path.endswith("second"):  # the first is over, and its outcome written
            time.sleep(600)
        return path

    async def main() -> None:
        paths = [str(tmp_path / name) for name in ("first", "second")]
        async with machine(1) as m:
            (worker,) = await m.lease(call, 1)
            m.workers.pause_reading()
            m.assign(worker, 0, 2, leaves_of(paths), careful=True)
            await poll((tmp_path / "second").exists)
            assert not m.results()
        assert m.results() == {0: paths[0]}
        assert not m.deaths

    run(main())


# --- back-pressure ---


def test_workers_wait_while_nobody_reads() -> None:
    def call(x: int) -> bytes:
        return bytes(100_000) if x else b""

    async def main() -> None:
        async with machine(1) as m:
            (worker,) = await m.lease(call, 1)
            m.workers.pause_reading()
            cell = m.assign(worker, 0, 400, leaves_of(range(400)), careful=True)
            before = None
            while True:  # until it stands still
                progress = m.progress(worker, cell)
                if progress is not None and progress == before and progress[0] > 1:
                    break
                before = progress
                await asyncio.sleep(0.2)
            assert before is not None
            assert before[0] < 100
            assert not m.outcomes
            m.workers.resume_reading()
            await m.until(lambda: bool(m.settled))
            assert len(m.results()) == 400

    run(main())


def test_a_file_in_the_folder_of_the_job_is_told_before_the_last_outcome(tmp_path: Path) -> None:
    async def main() -> None:
        async with machine() as m:
            variables = {"BURLA_JOB_DIR": str(tmp_path)}
            (worker,) = await m.lease(
                lambda x: open(f"{x}.txt", "w").close(), 1, variables=variables
            )
            told: list[bool] = []
            m.on_event = lambda: told.append(bool(m.output[NOTICE])) if m.results() else None
            m.assign(worker, 0, 1, leaves_of(range(1)))
            await m.until(lambda: bool(m.results()))
            assert told[0]
            m.assign(worker, 1, 3, leaves_of(range(1, 3)))  # it is told once
            await m.until(lambda: len(m.results()) == 3)
            assert m.output[NOTICE].startswith(b"burla: '0.txt' was written on node here")
            assert m.output[NOTICE].count(b"\n") == 1

    run(main())
