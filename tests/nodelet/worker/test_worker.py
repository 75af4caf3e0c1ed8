"""Real workers: what the function finds around it, and what it prints."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from machine import leaves_of, machine, run

pytestmark = pytest.mark.slow


def test_prints_come_before_the_outcome_and_from_everywhere() -> None:
    def call(x: int) -> int:
        import ctypes
        import os
        import subprocess
        import sys

        print("python", x)
        print("error", x, file=sys.stderr)
        os.write(1, b"descriptor %d\n" % x)
        subprocess.run(["echo", f"child {x}"], check=True)
        libc = ctypes.CDLL(None)
        libc.printf(b"c %d", x)
        print(f"rest {x}", end="")
        return x

    async def main() -> None:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            seen: list[bytes] = []
            m.on_event = lambda: (
                seen.append(bytes(m.output[1])) if m.told[-1] == "outcomes" else None
            )
            m.assign(worker, 0, 3, leaves_of([0, 1, 2]))
            await m.until(lambda: len(m.settled) == 1)
            for x in range(3):
                for text in ("python", "descriptor", "child", "c", "rest"):
                    assert f"{text} {x}".encode() in seen[x], (text, x, seen)
            assert bytes(m.output[2]) == b"error 0\nerror 1\nerror 2\n"

    run(main())


def test_a_print_shows_while_the_call_still_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def call(x: int) -> int:
        print("working")
        with open(gate) as file:
            file.read()
        return x

    async def main() -> None:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 1, leaves_of([0]))
            await m.until(lambda: bytes(m.output[1]) == b"working\n")
            assert not m.outcomes
            gate.write_text("go on")
            await m.until(lambda: len(m.settled) == 1)

    run(main())


def test_many_prints_all_arrive() -> None:
    def call(x: int) -> None:
        print("line", x)

    async def main() -> None:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 20_000, leaves_of(range(20_000)))
            await m.until(lambda: len(m.settled) == 1)
            assert m.output[1].decode().splitlines() == [f"line {x}" for x in range(20_000)]

    run(main())


def test_a_child_that_the_function_forked_ends_when_it_returns() -> None:
    def call(x: int) -> Any:
        import os

        if x == 2000:
            child = os.fork()
            if child == 0:
                print("child", flush=True)
                return "from the child"
            return os.waitpid(child, 0)[1]
        print("call", x)
        return x

    async def main() -> None:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 4000, leaves_of(range(4000)))
            await m.until(lambda: len(m.settled) == 1)
            results = m.results()
            assert results[2000] == 0
            assert len(results) == 4000
            lines = m.output[1].decode().splitlines()
            assert sorted(lines) == sorted(["child", *(f"call {x}" for x in results if x != 2000)])

    run(main())


def test_the_world_inside_a_worker() -> None:
    def look(x: int) -> dict[str, Any]:
        import os
        import signal
        import sys
        import threading

        try:
            input()
            eof = False
        except EOFError:
            eof = True
        return {
            "eof": eof,
            "session": os.getsid(0) == os.getpid(),
            "thread": threading.current_thread() is threading.main_thread(),
            "threads": threading.active_count(),
            "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
            "sigchld": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "pid": os.environ["BURLA_WORKER_PID"] == str(os.getpid()),
            "job": os.environ["BURLA_JOB_ID"],
            "threads_of_numpy": os.environ["OPENBLAS_NUM_THREADS"],
            "bad": [name for name in ("zmq", "asyncio", "uvloop") if name in sys.modules],
            "fds": [int(fd) for fd in os.listdir("/proc/self/fd") if 2 < int(fd) < 100],
        }

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        (got,) = run(_look(look))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert got.pop("fds") in ([], [3])  # the listing itself
    assert got == {
        "eof": True,
        "session": True,
        "thread": True,
        "threads": 1,
        "sigint": True,
        "sigterm": True,
        "sigchld": True,
        "blocked": set(),
        "pid": True,
        "job": "j1",
        "threads_of_numpy": "3",
        "bad": [],
    }


async def _look(look: Any) -> list[Any]:
    async with machine(1) as m:
        return await m.run(look, [0], 1, func_cpu=3, variables={"BURLA_JOB_ID": "j1"})
