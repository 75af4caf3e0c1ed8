"""Maps in the cells of a notebook: a real kernel, and what a front end shows of it."""

import asyncio
import glob
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from notebooks import Notebook, Shown, notebook
from scripts import write
from waiting import wait_gone

pytestmark = pytest.mark.slow

SETUP = """
import asyncio, os, sys, threading, time
import burla
from burla import remote_parallel_map

def stay(marker):
    open(marker, "w").close()
    time.sleep(600)
"""


class Cells:
    """A notebook, for tests that are no coroutines."""

    def __init__(self, made: Notebook, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.notebook, self.wait = made, wait

    def run(self, source: str) -> Shown:
        shown: Shown = self.wait(self.notebook.run(source))
        return shown


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def cells(directory: Path) -> Iterator[Cells]:
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.delenv("BURLA_CLUSTER", raising=False)
        patch.setenv("TMPDIR", str(directory))
        patch.setenv("IPYTHONDIR", str(directory / "ipython"))
        stack = AsyncExitStack()
        made = runner.run(stack.enter_async_context(notebook(directory)))
        cells = Cells(made, runner.run)
        assert cells.run(SETUP) == Shown()
        yield cells
        runner.run(stack.aclose())


def test_what_calls_print_and_show_is_under_the_cell(cells: Cells) -> None:
    shown = cells.run("""
        def greet(x):
            print("hello", x)
            print("careful", x, file=sys.stderr)
            return Rich(x)

        class Rich:
            def __init__(self, x): self.x = x
            def _repr_html_(self): return f"<b>{self.x}</b>"

        remote_parallel_map(greet, [7])[0]
    """)
    assert (shown.out, shown.err, shown.error) == ("hello 7\n", "careful 7\n", "")
    assert shown.result["text/html"] == "<b>7</b>"


def test_what_a_cell_defines_anew_is_never_stale(cells: Cells, directory: Path) -> None:
    write(directory, edited="def version(): return 1\n")
    (directory / "asked.py").write_text("import burla\nBASE = 5\ndef add(x): return x + BASE\n")
    shown = cells.run("""
        %load_ext autoreload
        %autoreload 2
        import edited
        class Kind:
            number = 1
        def make(x): return Kind.number, edited.version(), Kind()
        one, = remote_parallel_map(make, [0])
        print(one[:2], type(one[2]) is Kind)
    """)
    assert (shown.out, shown.error) == ("(1, 1) True\n", "")
    write(directory, edited="def version(): return 'two'\n")
    shown = cells.run("""
        class Kind:
            number = 2
        one, = remote_parallel_map(make, [0])
        print(one[:2], type(one[2]) is Kind)
        %run asked.py
        print(remote_parallel_map(add, [1]))
        BASE = 50
        print(remote_parallel_map(lambda x: x + BASE, [1]), await burla.amap(abs, [-1]))
    """)
    assert (shown.out, shown.error) == ("(2, 'two') True\n[6]\n[51] [1]\n", "")


def test_an_error_shows_the_lines_of_cells_and_none_of_ours(cells: Cells) -> None:
    cells.run("def fail(x):\n    half = x / 2\n    return half / 0\n")
    ways = (
        "remote_parallel_map(fail, [1])",
        "await burla.amap(fail, [1])",
        "list(remote_parallel_map(fail, [1], generator=True))",
        "with burla.Pool() as pool: pool.map(fail, [1])",
        "with burla.Executor() as executor: list(executor.map(fail, [1]))",
    )
    for way in ways:
        shown = cells.run(way)
        assert shown.error == "ZeroDivisionError"
        assert "----> 3     return half / 0" in shown.traceback, way
        assert f"----> 1 {way}" in shown.traceback, way
        assert "/burla/" not in shown.traceback, way
        assert len(shown.traceback.splitlines()) < 30, way


def test_a_display_says_how_far_it_is_and_how_it_ended(cells: Cells) -> None:
    shown = cells.run("remote_parallel_map(time.sleep, [0.8])")
    (display,) = shown.displays  # the last state of the one that there was
    assert display["text/plain"].startswith("burla: sleep: 1 call in ")
    assert shown.err == ""
    shown = cells.run("""
        with burla.Executor(spinner=True) as executor:
            list(executor.map(time.sleep, [0.8]))
    """)
    (display,) = shown.displays
    assert display["text/plain"].startswith("burla: sleep: 1 call in ")
    assert shown.err == ""


def test_output_goes_to_the_cell_that_called_though_another_runs(
    cells: Cells, directory: Path
) -> None:
    cells.run("""
        def work(x):
            while not os.path.exists("go"):
                time.sleep(0.01)
            print("of the first", x)

        def in_thread(x):
            remote_parallel_map(work, [x])

        executor = burla.Executor()
        threads = [threading.Thread(target=in_thread, args=("by a thread",))]
        threads[0].start()
        task = asyncio.create_task(burla.amap(work, ["by a task"]))
        await asyncio.sleep(0)
        future = executor.submit(work, "by an executor")
        print("first cell")
    """)
    shown = cells.run("""
        print("second cell")
        open("go", "w").close()
        threads[0].join()
        await task
        executor.shutdown()
        remote_parallel_map(print, ["of the second"])
    """)
    assert shown.error == "", shown.traceback
    wait, under = cells.wait, cells.notebook.wait_under
    for how in ("by a thread", "by a task", "by an executor"):
        wait(under("first cell", f"of the first {how}\n"))
    second = wait(under("second cell", "of the second"))
    assert "of the first" not in second


@pytest.mark.parametrize(
    ("way", "error"),
    [
        ("remote_parallel_map(stay, ['in'])", "KeyboardInterrupt"),
        ("await burla.amap(stay, ['in'])", "CancelledError"),
        ("with burla.Executor() as one: one.submit(stay, 'in').result()", "KeyboardInterrupt"),
        ("with burla.Executor() as one: one.submit(stay, 'in')", "KeyboardInterrupt"),
        ("with burla.Pool() as pool: pool.map(stay, ['in'])", "KeyboardInterrupt"),
    ],
)
def test_an_interrupt_stops_the_calls(cells: Cells, directory: Path, way: str, error: str) -> None:
    shown = cells.wait(cells.notebook.interrupted(way, directory / "in"))
    assert shown.error == error
    assert "/burla/" not in shown.traceback or "Executor" in way
    assert cells.run("remote_parallel_map(abs, [-2])").result == {"text/plain": "[2]"}


def test_a_restart_leaves_nothing(cells: Cells, directory: Path) -> None:
    source = "big = b'x' * (1 << 22)\nremote_parallel_map(lambda x: stay('in') or big, [1])"
    wait_gone(cells.wait(cells.notebook.killed(source, directory / "in")))
    assert glob.glob(f"{directory}/burla-*") == []
    pid = cells.notebook.pid
    assert [name for name in glob.glob("/dev/shm/burla-*") if f"-{pid}-" in name] == []
