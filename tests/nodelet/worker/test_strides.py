"""Real workers: what they run, in which strides, and what comes back."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from machine import leaves_of, machine, run

from burla.nodelet.worker import pipes
from burla.nodelet.worker.slate import PAGE_BYTES, AgentSlate, WorkerSlate
from burla.nodelet.worker.spans import Span
from burla.nodelet.worker.strides import Walker
from burla.protocol.messages import Kind
from burla.values import payloads

pytestmark = pytest.mark.slow


async def _run(
    function: Any, inputs: Any, workers: int = 1, *, cuts: bool = False, **how: Any
) -> list[Any]:
    async with machine(workers, cuts=cuts) as m:
        return await m.run(function, inputs, workers, **how)


def test_every_result_comes_once_and_in_its_place() -> None:
    def double(x: int) -> int:
        return x * 2

    for inputs in (range(50_000), list(range(20_000))):
        assert run(_run(double, inputs, 2)) == [x * 2 for x in inputs]


def test_quick_calls_share_strides_and_slow_ones_do_not() -> None:
    def call(x: int) -> int:
        if x >= 5000:
            __import__("time").sleep(0.0002)
        return x

    async def main() -> list[list[int]]:
        sizes = []
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            for lo, hi in ((0, 5000), (5000, 5005), (5005, 5030)):
                m.outcomes.clear()
                m.settled.clear()
                m.assign(worker, lo, hi, leaves_of(range(6000)))
                await m.until(lambda: len(m.settled) == 1)
                sizes.append([outcome.hi - outcome.lo for _, outcome in m.outcomes])
        return sizes

    quick, _, slow = run(main())
    assert sum(quick) == 5000
    assert max(quick) > 100
    assert slow == [1] * 25


def test_what_is_left_bounds_a_stride() -> None:
    import signal
    import time

    def call(x: int) -> int:
        if x == 200:  # and no cut may change what is seen
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
            time.sleep(100)
        return x

    async def main() -> int:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            cell = m.assign(worker, 0, 400, leaves_of(range(400)), left=0, slots=10)
            claimed = 0
            async with asyncio.timeout(20):
                while claimed <= 200:  # nothing is told of a worker that is in a call
                    await asyncio.sleep(0.005)
                    claimed, _ = m.progress(worker, cell) or (0, 0)
            return claimed

    assert run(main()) <= 200 + 10


@pytest.mark.parametrize(
    ("call_ns", "claimed"),
    [(300, 8), (5_000, 4), (15_000, 1), (60_000, 1), (0, 1)],
)
def test_a_stride_is_not_shorter_than_it_takes_to_steal_it(call_ns: int, claimed: int) -> None:
    words = memoryview(bytearray(PAGE_BYTES)).cast("q")
    AgentSlate(words).open(0, 0, 100)
    slate = WorkerSlate(words)
    slate.enter(0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        walker = Walker(theirs, slate)
        walker._call_ns = call_ns
        span = Span(
            pipes.Message(pipes.Kind.SPAN, 0, 0, 0, 100, 0, 1000), []
        )  # a share of it is no call
        assert walker._claim(span, 0) == claimed


def test_careful_means_strides_of_one() -> None:
    async def main() -> list[int]:
        async with machine() as m:
            (worker,) = await m.lease(lambda x: x, 1)
            m.assign(worker, 0, 300, leaves_of(range(300)), careful=True)
            await m.until(lambda: len(m.settled) == 1)
            return [outcome.hi - outcome.lo for _, outcome in m.outcomes]

    assert run(main()) == [1] * 300


def test_a_reused_buffer_does_not_change_earlier_results() -> None:
    def make() -> Any:
        buffer: list[int] = [0]

        def call(x: int) -> Any:
            buffer[0] = x
            return buffer if x % 7 == 0 else x

        return call

    assert run(_run(make(), range(3000))) == [[x] if x % 7 == 0 else x for x in range(3000)]


def test_tuples_of_immutables_are_immutable_and_others_are_not() -> None:
    def make() -> Any:
        buffer: list[int] = [0]

        def call(x: int) -> Any:
            buffer[0] = x
            return (x, "a") if x % 3 else (x, buffer)

        return call

    expected = [(x, "a") if x % 3 else (x, [x]) for x in range(2000)]
    assert run(_run(make(), range(2000))) == expected


def test_an_error_is_the_outcome_of_its_input_only() -> None:
    def call(x: int) -> int:
        if x % 100 == 50:
            raise ValueError(f"not {x}")
        return x

    got = run(_run(call, range(1000), 2))
    for x, one in enumerate(got):
        if x % 100 == 50:
            assert isinstance(one, payloads.Failure)
            assert (one.index, one.node, one.text) == (x, "here", f"not {x}")
            assert isinstance(one.exception, ValueError)
        else:
            assert one == x


@pytest.mark.parametrize(
    "error", [SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError]
)
def test_odd_exceptions_are_errors_like_any_other(error: type[BaseException]) -> None:
    def call(x: int) -> int:
        if x == 3:
            raise error("odd")
        return x

    got = run(_run(call, range(6)))
    assert isinstance(got[3].exception, error)
    assert got[:3] + got[4:] == [0, 1, 2, 4, 5]


def test_after_a_keyboard_interrupt_nothing_more_of_the_span_is_called() -> None:
    """It may be the one that ends the lease, and then no other call is to begin."""

    def call(x: int) -> int:
        if x == 103:
            raise KeyboardInterrupt
        return x

    async def main() -> tuple[int, int]:
        async with machine() as m:
            (worker,) = await m.lease(call, 1)
            m.assign(worker, 0, 1000, leaves_of(range(1000)))
            await m.until(lambda: len(m.settled) == 1)
            return max(outcome.hi for _, outcome in m.outcomes), m.settled[0][2]

    assert run(main()) == (104, 104)


def test_a_result_that_cannot_be_pickled_is_an_error_of_its_input() -> None:
    def call(x: int) -> Any:
        return (y for y in "ab") if x == 2 else x

    got = run(_run(call, range(4)))
    assert got[2].kind == "result"
    assert got[:2] + got[3:] == [0, 1, 3]


class Unloadable:
    """Can be pickled, but not unpickled in a worker."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_an_input_that_cannot_be_unpickled_is_an_error_of_that_index() -> None:
    inputs: list[Any] = [[x] for x in range(40)]
    inputs[17] = Unloadable()
    got = run(_run(lambda x: x[0], inputs))
    assert got[17].kind == "input"
    assert got[:17] + got[18:] == [*range(17), *range(18, 40)]


def test_big_inputs_and_results_pass() -> None:
    inputs = [bytes([number]) * (5 << 20) for number in range(4)]
    assert run(_run(lambda x: x[:-1], inputs, 2)) == [data[:-1] for data in inputs]


def test_arguments_are_unpacked_if_so_decided() -> None:
    assert run(_run(lambda a, b: a - b, [(5, 3), (1, 1)], unpack=True)) == [2, 0]


@pytest.mark.parametrize("inputs", [range(60_000), list(range(60_000))], ids=["range", "list"])
def test_a_stuck_call_in_a_stride_of_many_gives_back_the_rest(inputs: Any, tmp_path: Path) -> None:
    stuck_at = 30_000
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def call(x: int) -> int:
        if x == stuck_at:
            with open(gate) as file:
                file.read()
        return x

    async def main() -> None:
        async with machine(cuts=True) as m:
            first, second = await m.lease(call, 2)
            leaves = leaves_of(inputs)
            cell = m.assign(first, 0, 60_000, leaves)
            await m.until(lambda: bool(m.given_back))
            # all outcomes before it have come, though their stride is not over
            assert m.count() == stuck_at
            ((worker, of, lo, hi),) = m.given_back
            assert (worker, of, lo, hi) == (first, cell, stuck_at + 1, 60_000)
            assert m.steal(first, cell, 0) is None
            m.assign(second, lo, hi, leaves)
            await m.until(lambda: len(m.settled) == 1)
            assert m.count() == 60_000 - 1
            gate.write_text("go on")
            await m.until(lambda: len(m.settled) == 2)
            assert m.settled[1] == (first, cell, stuck_at + 1, stuck_at + 1)
            assert sorted(m.results()) == list(range(60_000))

    run(main())


def test_a_cut_gives_mutable_results_that_were_gathered(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def call(x: int) -> Any:
        if x == 4000:
            with open(gate) as file:
                file.read()
        return [x] if x > 3000 else x

    async def main() -> None:
        async with machine(cuts=True) as m:
            (worker,) = await m.lease(call, 1)
            leaves = leaves_of(range(5000))
            m.assign_again(leaves)
            m.assign(worker, 0, 5000, leaves)
            await m.until(lambda: m.count() == 4000)
            gate.write_text("go on")
            await m.until(lambda: m.count() == 5000)
            assert m.results() == {x: [x] if x > 3000 else x for x in range(5000)}

    run(main())


def test_the_cut_leaves_the_users_own_signals_alone() -> None:
    def call(x: int) -> Any:
        import time

        if x == 500:
            rang = []
            signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(0.2)
            return rang == [signal.SIGALRM] and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        return x

    assert run(_run(call, range(1000), cuts=True))[500] is True


def test_stealing_from_a_running_worker_loses_nothing() -> None:
    async def main() -> None:
        async with machine() as m:
            first, second = await m.lease(lambda x: x, 2)
            total = 300_000
            leaves = leaves_of(range(total))
            cell = m.assign(first, 0, total, leaves)
            stolen: list[tuple[int, int]] = []
            while True:
                progress = m.progress(first, cell)
                if progress is None or progress[0] >= progress[1]:
                    break
                got = m.steal(first, cell, progress[1] - (progress[1] - progress[0]) // 8)
                if got is None:
                    break
                stolen.append(got)
                m.assign(second, *got, leaves)
                await asyncio.sleep(0)
                if not m.free_cells(second):
                    break
            await m.until(lambda: len(m.settled) == 1 + len(stolen))
            missing = [(lo, hi) for _, _, lo, hi in m.settled if lo < hi]
            got_all = m.results()
            assert stolen
            assert len(got_all) + sum(hi - lo for lo, hi in missing) == total

    run(main())


def test_a_leaf_is_decoded_once_for_calls_dealt_one_by_one() -> None:
    async def main() -> None:
        async with machine() as m:
            (worker,) = await m.lease(lambda x: x, 1)
            leaves = leaves_of(list(range(264)))
            assert (leaves[1].lo, leaves[1].hi) == (8, 72)
            for index in range(8, 72):
                m.assign(worker, index, index + 1, leaves)
                await m.until(lambda count=index - 7: len(m.settled) == count)  # type: ignore[misc]
            assert m.results() == {index: index for index in range(8, 72)}
            assert {o.kind for _, o in m.outcomes} == {Kind.RESULTS}

    run(main())
