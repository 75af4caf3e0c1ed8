"""Executors and pools over a cluster, as people expect those of Python."""

import asyncio
import functools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, as_completed
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import uvloop
from scripts import run, succeed, write
from waiting import wait_until

import burla
from burla import Executor, Pool, WorkerDied
from burla.interfaces import lane

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]

STATE = "as it was"


def square(x: int, add: int = 0) -> int:
    """Return the square of `x`."""
    return x * x + add


def set_state(value: str) -> None:
    """Be an initializer."""
    global STATE
    STATE = value


def state() -> str:
    """Return what the initializer set."""
    return STATE


async def wait_in_vain() -> None:
    """Be called by mistake."""


WAIT_IN_VAIN: Any = wait_in_vain


def fail_to_start() -> None:
    """Be an initializer that fails."""
    raise OSError("no licence")


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor() as made:
        yield made


def test_functions_of_many_kinds_in_one_go(executor: Executor) -> None:
    factor = 3
    calls: list[tuple[Any, Any, Any]] = [
        (executor.submit(square, 3), 9, None),
        (executor.submit(square, 3, add=1), 10, None),
        (executor.submit(lambda x: x * factor, 5), 15, None),
        (executor.submit(functools.partial(square, add=2), 2), 6, None),
        (executor.submit("a,b".split, ","), ["a", "b"], None),
        (executor.submit(sorted, [2, 1], reverse=True), [2, 1], None),
        (executor.submit(len, {"a": [1]}), 1, None),
        (executor.submit(int), 0, None),
    ]
    assert [future.result() for future, _, _ in calls] == [expected for _, expected, _ in calls]


def test_ten_thousand_futures(executor: Executor) -> None:
    futures = [executor.submit(square, x) for x in range(10_000)]
    assert {future.result() for future in as_completed(futures)} == {x * x for x in range(10_000)}


def test_a_function_is_called_as_it_was_when_it_was_submitted(tmp_path: Path) -> None:
    source = """
        import burla, time
        def helper(): return value
        def f(): return value, helper()
        with burla.Executor() as executor:
            futures = []
            for value in range(3):
                futures.append(executor.submit(f))
            time.sleep(0.002)
            def helper(): return "new"
            futures.append(executor.submit(f))
            print([future.result() for future in futures])
    """
    expected = "[(0, 0), (1, 1), (2, 2), (2, 'new')]"
    assert succeed(source, tmp_path).strip() == expected


def test_arguments_are_sent_as_they_were_and_classes_stay_the_caller_s(executor: Executor) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    values = [1]
    first = executor.submit(list, values)
    values.append(2)
    second = executor.submit(lambda p: (isinstance(p, Point), p), Point(4))
    assert first.result() == [1]
    is_same, point = second.result()
    assert is_same
    assert type(point) is Point
    assert point.x == 4


def test_big_arrays_come_and_go_whole(executor: Executor) -> None:
    array = np.arange(300_000.0)
    futures = [executor.submit(lambda a, i: a[i:], array, i) for i in range(3)]
    for i, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(), array[i:])
    total = executor.submit(lambda: float(array.sum())).result()  # in the closure
    assert total == array.sum()


def test_an_error_is_that_of_its_call_alone(executor: Executor) -> None:
    bad, good = executor.submit(divmod, 1, 0), executor.submit(divmod, 7, 2)
    assert good.result() == (3, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        bad.result()
    assert caught.value.__notes__ == ["divmod(1, 0) · node node0"]
    with pytest.raises(TypeError, match="argument 0 is a generator"):
        executor.submit(sum, (one for one in (1,))).result()
    with pytest.raises(TypeError, match="is an async function"):
        executor.submit(WAIT_IN_VAIN).result()
    with pytest.raises(burla.FunctionExited, match="exit"):
        executor.submit(sys.exit, 3).result()
    with pytest.raises(WorkerDied, match=r"_exit\(3\) · node node0"):
        executor.submit(os._exit, 3).result()
    assert executor.submit(square, 2).result() == 4  # it goes on


def test_what_is_not_sent_can_be_cancelled(executor: Executor, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def wait_for_it(path: str) -> int:
        while not os.path.exists(path):
            time.sleep(0.01)
        return os.getpid()

    futures = [executor.submit(wait_for_it, str(go)) for _ in range(60)]
    wait_until(futures[0].running, "the first call is sent")
    assert not futures[0].cancel()
    assert futures[-1].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert sum(future.cancelled() for future in futures) > 20
    go.touch()
    executor.shutdown()
    with pytest.raises(CancelledError):
        futures[-1].result()
    assert all(future.result() for future in futures if not future.cancelled())
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_map_is_in_order_lazy_if_asked_and_has_a_timeout(executor: Executor) -> None:
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == [x**x for x in range(10)]
    pulled = []

    def inputs() -> Iterator[int]:
        for x in range(100):
            pulled.append(x)
            yield x

    results = executor.map(square, inputs(), buffersize=4)
    assert [next(results), next(results)] == [0, 1]
    assert len(pulled) == 6
    results.close()  # type: ignore[attr-defined]  # a generator, as in Python's own
    with pytest.raises(TimeoutError):
        list(executor.map(time.sleep, [0, 0.5], timeout=0.1))
    assert list(executor.map(square, [])) == []


def test_callbacks_may_submit_and_fail(executor: Executor) -> None:
    chain: list[int] = []
    ended = threading.Event()

    def go_on(future: Any) -> None:
        chain.append(future.result())
        if len(chain) < 3:
            executor.submit(square, chain[-1]).add_done_callback(go_on)
        else:
            ended.set()
            raise RuntimeError("nobody hears this")

    executor.submit(square, 2).add_done_callback(go_on)
    assert ended.wait(20)
    assert chain == [4, 16, 256]
    assert executor.submit(square, 2).result() == 4


def test_asyncio_takes_it_as_an_executor(executor: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(executor, square, x) for x in range(20)),
            asyncio.wrap_future(executor.submit(square, 20)),
        )

    assert asyncio.run(main()) == [x * x for x in range(21)]


def test_an_initializer_runs_once_in_each_process_before_its_calls() -> None:
    with Executor(2, initializer=set_state, initargs=("ready",)) as executor:
        assert {future.result() for future in [executor.submit(state) for _ in range(20)]} == {
            "ready"
        }
    with Executor(initializer=fail_to_start) as executor:
        with pytest.raises(BrokenExecutor, match="no licence"):
            executor.submit(square, 1).result()
        with pytest.raises(BrokenExecutor, match="make a new one"):
            executor.submit(square, 1)


def test_inside_a_call_it_calls_there(executor: Executor) -> None:
    def nested(x: int) -> tuple[list[int], list[int]]:
        with Executor() as inner, Pool() as pool:
            here = inner.submit(os.getpid).result() == os.getpid()
            return [*inner.map(square, range(x)), here], pool.map(square, range(x))

    assert executor.submit(nested, 3).result() == ([0, 1, 4, True], [0, 1, 4])


def test_an_executor_that_is_dropped_ends_its_calls_and_its_threads() -> None:
    future = Executor().submit(square, 5)
    assert future.result() == 25
    with Executor() as executor:
        executor.submit(square, 1).result()
        deadline = time.monotonic() + 20
        while any(one.name == "burla-lane" for one in threading.enumerate()):
            assert time.monotonic() < deadline, "it rests without a thread"
            time.sleep(lane.IDLE_S)
        assert executor.submit(square, 2).result() == 4


def test_nothing_to_do_is_done_at_once() -> None:
    with Executor() as executor:
        assert list(executor.map(square, [])) == []
    with Pool() as pool:
        assert list(pool.imap(square, [])) == []
        pool.close()
        pool.join()


def test_a_module_that_was_imported_later_is_found_there(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, late_module="def triple(x): return 3 * x")
    assert executor.submit(square, 2).result() == 4
    monkeypatch.syspath_prepend(tmp_path)
    import late_module  # type: ignore[import-not-found]

    assert executor.submit(late_module.triple, 2).result() == 6


def test_the_process_ends_after_its_calls_and_what_they_print(tmp_path: Path) -> None:
    source = """
        import time, burla, atexit
        @atexit.register
        def too_late():
            try:
                executor.submit(print, "never")
            except RuntimeError as error:
                print(error)
        executor = burla.Executor()
        executor.submit(lambda: (time.sleep(0.3), print("a pear")))
        executor.shutdown(wait=False)
        other = burla.Executor()
        other.submit(print, "an apple")
    """
    printed = succeed(source, tmp_path).splitlines()
    assert sorted(printed) == [
        "a pear",
        "an apple",
        "cannot schedule new futures after shutdown",
    ]
    source = """
        import os, burla
        executor = burla.Executor()
        executor.submit(int).result()
        if os.fork() == 0:
            try:
                executor.submit(int)
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
    """
    assert "was forked: make one here" in run(source, tmp_path).stdout


def test_a_pool_does_what_that_of_multiprocessing_does() -> None:
    called: list[Any] = []
    with Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
        assert pool.starmap(square, [(1, 2), (3, 4)]) == [3, 13]
        assert pool.apply(square, (3,), {"add": 1}) == 10
        assert list(pool.imap(square, iter(range(2000)), chunksize=7)) == [
            x * x for x in range(2000)
        ]
        assert sorted(pool.imap_unordered(square, range(20))) == [x * x for x in range(20)]
        assert pool.map_async(square, [], callback=called.append).get() == []
        pool.starmap_async(square, [(2, 2)], callback=called.append).get(20)
        failed = pool.apply_async(divmod, (1, 0), error_callback=called.append)
        with pytest.raises(ZeroDivisionError):
            failed.get(20)
        assert not failed.successful()
        assert called[:2] == [[], [6]]
        assert isinstance(called[2], ZeroDivisionError)
        slow = pool.apply_async(time.sleep, (60,))
        with pytest.raises(ValueError, match="not ready"):
            slow.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            slow.get(0.05)
        with pytest.raises(multiprocessing.TimeoutError):
            pool.imap(time.sleep, [60]).next(0.05)
        with pytest.raises(ValueError, match="still running"):
            pool.join()
    pool.join()  # `with` has terminated it
    with pytest.raises(lane.Stopped):
        slow.get(20)
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(square, [1])


def test_errors_of_a_pool_come_when_all_calls_have_ended(tmp_path: Path) -> None:
    def fail_or_touch(x: int) -> Any:
        if x == 0:
            raise KeyError(x)
        if x == 1:
            return ValueError("returned, not raised")
        (tmp_path / str(x)).touch()
        return x

    with Pool() as pool:
        with pytest.raises(KeyError):
            pool.map(fail_or_touch, range(20))
        assert len(list(tmp_path.iterdir())) == 18
        assert type(pool.map(fail_or_touch, [1])[0]) is ValueError
        results = pool.imap(fail_or_touch, [0, 2])
        with pytest.raises(KeyError):
            next(results)
        assert [*results] == [2]
        failing = pool.imap(square, (x if x < 3 else 1 / 0 for x in range(9)))
        assert [next(failing) for _ in range(3)] == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            next(failing)
        assert [*failing] == []


def touch_and_wait(path: str) -> float:
    """Say that it runs, and wait until it may end."""
    Path(path).with_suffix(".begun").touch()
    while not os.path.exists(path):
        time.sleep(0.005)
    return time.monotonic()


async def exists(path: Path) -> None:
    """Return when there is such a file."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.001)


def run_asyncio(main: Any) -> Any:
    return asyncio.run(main())


def run_uvloop(main: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("run_loop", [run_asyncio, run_uvloop])
def test_a_loop_goes_on_while_a_map_runs(run_loop: Any, tmp_path: Path) -> None:
    """The calls end only when the loop has had turns after they began: else it would hang."""
    go = tmp_path / "go"

    async def let_go() -> None:
        await exists(go.with_suffix(".begun"))
        go.touch()

    async def inputs() -> Any:
        for x in range(5):
            await asyncio.sleep(0)
            yield x

    async def main() -> list[Any]:
        _, [ended] = await asyncio.gather(let_go(), burla.amap(touch_and_wait, [str(go)]))
        assert ended > 0
        return [
            await burla.amap(square, range(5)),
            await burla.amap(square, (x for x in range(5))),
            await burla.amap(square, inputs()),
            [x async for x in burla.amap(square, inputs(), generator=True, ordered=True)],
            sorted([x async for x in burla.amap(square, [3, 2, 1], generator=True)]),
            await burla.amap(square, []),
            [x async for x in burla.amap(square, [], generator=True)],
            await burla.amap(divmod, [(1, 0)], return_exceptions=True, with_index=True),
        ]

    squares = [0, 1, 4, 9, 16]
    *lists, (failed,) = run_loop(main)
    assert lists == [squares, squares, squares, squares, [1, 4, 9], [], []]
    assert failed[0] == 0
    assert isinstance(failed[1], ZeroDivisionError)


def test_who_cancels_a_map_ends_its_calls(tmp_path: Path) -> None:
    async def begun(what: Any, never: Path) -> asyncio.Task[Any]:
        task = asyncio.create_task(what)
        await exists(never.with_suffix(".begun"))
        return task

    async def main() -> None:
        never, neither = tmp_path / "never", tmp_path / "neither"
        task = await begun(burla.amap(touch_and_wait, [str(never)] * 9), never)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await burla.amap(square, [2]) == [4]  # its nodes are free

        limit = asyncio.timeout(None)

        async def read_one() -> None:
            async with limit:
                async for _ in burla.amap(touch_and_wait, [str(neither)], generator=True):
                    raise AssertionError("it never ends")

        task = await begun(read_one(), neither)
        limit.reschedule(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError):
            await task
        results = burla.amap(square, range(100_000), generator=True)
        assert await anext(results) == 0
        await results.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        dropped = burla.amap(square, range(100_000), generator=True)
        await anext(dropped)
        del dropped
        assert await burla.amap(square, [2]) == [4]
        with pytest.raises(ZeroDivisionError) as caught:
            await burla.amap(lambda x: 1 // x, [1, 0])
        assert caught.value.__notes__ == ["input 1 = 0 · node node0"]
        with pytest.raises(TypeError, match="must be callable"):
            burla.amap(3, [1])  # type: ignore[call-overload]

    asyncio.run(main())


def test_three_hundred_maps_at_once_take_one_thread(tmp_path: Path) -> None:
    source = """
        import asyncio, burla, threading
        def square(x): return x * x
        async def main():
            maps = [asyncio.create_task(burla.amap(square, [x, x + 1])) for x in range(300)]
            await maps[0]
            threads = [one.name for one in threading.enumerate()]
            results = await asyncio.gather(*maps)
            assert results == [[x * x, (x + 1) ** 2] for x in range(300)]
            print(threads.count("burla-async"), len(threads))
        asyncio.run(main())
    """
    assert succeed(source, tmp_path).split()[0] == "1"


def test_joblib_has_its_calls_made_there_and_big_arrays_go_along_once() -> None:
    burla.register_joblib()
    array = np.arange(300_000.0)

    def part(a: Any, i: int) -> tuple[float, bool]:
        return float(a[i:].sum()), a.flags.writeable

    def nested(x: int) -> Any:
        inner = joblib.Parallel(n_jobs=2, backend="burla")
        return inner(joblib.delayed(square)(i) for i in range(x)), os.getpid()

    with joblib.parallel_config(backend="burla", retries=1):
        calls = (joblib.delayed(part)(array, i) for i in range(8))
        assert joblib.Parallel(n_jobs=2)(calls) == [
            (float(array[i:].sum()), False) for i in range(8)
        ]
        with joblib.Parallel(n_jobs=-1) as parallel:
            assert parallel(joblib.delayed(square)(x) for x in range(50)) == [
                x * x for x in range(50)
            ]
            with pytest.raises(ZeroDivisionError):
                parallel(joblib.delayed(divmod)(1, x) for x in range(3))
            (squares, pid), _ = parallel(joblib.delayed(nested)(x) for x in (3, 2))
    assert squares == [0, 1, 4]
    assert pid != os.getpid()
    with (
        joblib.parallel_config(backend="burla", chunk=3),
        pytest.raises(TypeError, match="'chunk' is no option of calls"),
    ):
        joblib.Parallel(n_jobs=2)([joblib.delayed(abs)(1)])
