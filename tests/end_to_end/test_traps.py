"""Traps that users of such systems fell into; each of them does no harm here."""

import functools
import operator
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import run, succeed, write

from burla import remote_parallel_map

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]

LATE_S = 20.0


def wait_for(directory: str, count: int) -> bool:
    """Return whether so many files appear in a directory."""
    until = time.monotonic() + LATE_S
    while len(os.listdir(directory)) < count:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


# --- who runs when ---


def test_two_inputs_on_two_idle_slots_run_at_the_same_time(tmp_path: Path) -> None:
    def meet(job_and_name: str) -> bool:
        job, name = job_and_name.split()
        here = str(tmp_path / job)
        os.makedirs(here, exist_ok=True)
        open(os.path.join(here, name), "w").close()
        return wait_for(here, 2)

    for job in range(5):
        assert remote_parallel_map(meet, [f"{job} a", f"{job} b"]) == [True, True]


@pytest.mark.parametrize("stuck", [0, 1, 500, 998, 999])
def test_quick_inputs_are_not_held_up_behind_a_stuck_one(stuck: int, tmp_path: Path) -> None:
    """The stuck call ends only when all others have ended."""
    here = str(tmp_path)

    def tiny(x: int) -> Any:
        if x == stuck:
            return wait_for(here, 999)
        open(os.path.join(here, str(x)), "w").close()
        return x

    results = remote_parallel_map(tiny, range(1000))
    assert results == [x if x != stuck else True for x in range(1000)]


def test_a_stuck_one_among_thousands_of_the_tiniest(tmp_path: Path) -> None:
    """So tiny that they go many at a time: a generator shows that all the others are done."""
    go = str(tmp_path / "go")

    def tiny(x: int) -> int:
        if x == 7777:
            until = time.monotonic() + LATE_S
            while not os.path.exists(go):
                if time.monotonic() > until:
                    return -1
                time.sleep(0.005)
        return x

    results = remote_parallel_map(tiny, range(20_000), generator=True)
    first = {next(results) for _ in range(19_999)}
    assert first == set(range(20_000)) - {7777}
    Path(go).touch()
    assert list(results) == [7777]


def test_two_stuck_ones_and_one_slot_each(tmp_path: Path) -> None:
    """Both slots are stuck for a while; nothing is lost, and nothing runs twice."""
    here = str(tmp_path)

    def call(x: int) -> int:
        with open(os.path.join(here, str(x)), "a") as file:
            file.write("x")
        if x in (10, 20):
            time.sleep(0.3)
        return x

    assert remote_parallel_map(call, range(300)) == list(range(300))
    assert {(tmp_path / str(x)).read_text() for x in range(300)} == {"x"}


def test_code_that_holds_the_gil_does_no_harm(tmp_path: Path) -> None:
    """One regular expression, seconds long, in one opcode: nothing of ours needs its GIL."""

    last, late_s = str(tmp_path / "last"), LATE_S

    def hold(x: int) -> int:
        import ctypes

        if x == 1999:
            open(last, "w").close()
        if x == 3:
            until_s = time.monotonic() + late_s
            ctypes.PyDLL(None).usleep(1_500_000)  # PyDLL keeps the GIL
            while not os.path.exists(last) and time.monotonic() < until_s:  # a busy machine
                ctypes.PyDLL(None).usleep(100_000)
        return x

    results = remote_parallel_map(hold, range(2000), generator=True)
    order = list(results)
    assert sorted(order) == list(range(2000))
    assert order.index(3) > 1900  # the others were not held up


# --- where it runs ---


def test_the_function_is_loaded_once_per_worker(tmp_path: Path) -> None:
    loads = str(tmp_path / "loads")

    class Counted:
        def __getstate__(self) -> dict[str, int]:
            return {"a": 1}

        def __setstate__(self, state: dict[str, int]) -> None:
            import os

            with open(loads, "a") as file:
                file.write(f"{os.getpid()}\n")

    counted = Counted()

    def call(x: int) -> int:
        assert counted is not None
        return os.getpid()

    assert len(set(remote_parallel_map(call, range(5000)))) <= 2
    loaded = Path(loads).read_text().split()
    assert len(loaded) == len(set(loaded)) <= 2  # one, if the workers are its copies


def test_it_runs_in_the_main_thread_and_no_event_loop_runs_there() -> None:
    def where(x: int) -> Any:
        import asyncio
        import signal
        import threading

        async def answer() -> int:
            await asyncio.sleep(0)
            return 42

        before = signal.signal(signal.SIGALRM, signal.SIG_DFL)  # only the main thread may
        signal.signal(signal.SIGALRM, before)
        main = threading.current_thread() is threading.main_thread()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return main, threading.active_count(), asyncio.run(answer())
        return "a loop runs"

    assert remote_parallel_map(where, range(4)) == [(True, 1, 42)] * 4


def test_a_function_may_use_multiprocessing_threads_and_forks() -> None:
    def busy(x: int) -> int:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        with ThreadPoolExecutor(2) as threads:
            total: int = sum(threads.map(abs, [-x, -x]))
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
            total += sum(processes.map(abs, [-x, -x]))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return total

    assert remote_parallel_map(busy, range(4)) == [0, 4, 8, 12]


def test_random_numbers_differ_between_workers_and_jobs() -> None:
    def draw(x: int) -> float:
        import random

        time.sleep(0.001)
        return random.random()

    numbers = remote_parallel_map(draw, range(50)) + remote_parallel_map(draw, range(50))
    assert len(set(numbers)) == 100


# --- what is the same ---

SAME = """
import asyncio, dataclasses, enum, sys
from burla import remote_parallel_map
print("the body runs")

class Colour(enum.Enum):
    RED = 1

class Flag(enum.IntFlag):
    A = 1
    B = 2

@dataclasses.dataclass
class Point:
    x: int

class Trouble(Exception):
    pass

SCALE = 2

def scale(x):
    return x * SCALE

def check(p):
    assert isinstance(p, Point) and type(p) is Point
    return Colour.RED, Flag.A | Flag.B, Point(p.x + 1), scale(p.x)

def fail(x):
    raise Trouble(x)

for factor in (2, 3):
    SCALE = factor
    ((colour, flag, point, scaled),) = remote_parallel_map(check, [Point(1)])
    assert colour is Colour.RED and flag is Flag.A | Flag.B
    assert type(point) is Point and point == Point(2)
    assert scaled == factor, scaled

try:
    remote_parallel_map(fail, [1])
except Trouble as error:
    assert type(error) is Trouble

def odd(kind):
    raise kind("odd")

for kind in (asyncio.CancelledError, TimeoutError, StopIteration, StopAsyncIteration,
             GeneratorExit and RuntimeError, AssertionError, MemoryError, RecursionError):
    try:
        remote_parallel_map(odd, [kind])
    except kind as error:
        assert error.args == ("odd",) and error.burla_input_index == 0, error
    else:
        raise SystemExit(f"{kind} was swallowed")
print("fine")
"""


@pytest.mark.parametrize("private", [False, True])
def test_a_script_without_a_guard_runs_once_and_its_classes_stay_the_same(
    private: bool, tmp_path: Path
) -> None:
    assert succeed(SAME, tmp_path, private=private) == "the body runs\nfine\n"


def test_globals_are_taken_at_call_time(tmp_path: Path) -> None:
    source = """
    from burla import remote_parallel_map
    value = "at the definition"
    def get(x):
        return value
    value = "at the call"
    results = remote_parallel_map(get, range(5), generator=True)
    value = "after the call"
    assert list(results) == ["at the call"] * 5
    print(remote_parallel_map(get, [0]))
    """
    assert succeed(source, tmp_path) == "['after the call']\n"


def test_stop_iteration_does_not_end_a_generator_silently() -> None:
    def stop(x: int) -> int:
        if x == 2:
            raise StopIteration("not the end")
        return x

    with pytest.raises(RuntimeError) as info:
        list(remote_parallel_map(stop, range(4), generator=True))
    assert type(info.value.__cause__) is StopIteration


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n

    def add(self, x: int) -> int:
        return x + self.n

    @classmethod
    def make(cls, x: int) -> int:
        return x + 1

    @staticmethod
    def static(x: int) -> int:
        return x + 1


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(operator.add, 1),
        Adder(1),
        Adder(1).add,
        Adder.make,
        Adder.static,
        (1).__add__,
        operator.methodcaller("__add__", 1),
        functools.lru_cache(lambda x: x + 1),
        functools.partial(functools.partial(operator.add), 1),
    ],
    ids=lambda function: type(function).__name__,
)
def test_callables_without_a_name(function: Callable[[int], int]) -> None:
    assert remote_parallel_map(function, [1, 2, 3]) == [2, 3, 4]


def test_builtins_and_types() -> None:
    assert remote_parallel_map(len, ["", "a"]) == [0, 1]
    assert remote_parallel_map(int, ["1", "2"]) == [1, 2]
    assert remote_parallel_map(max, [[1, 5], [7, 2]]) == [5, 7]
    assert remote_parallel_map(divmod, [(7, 2)]) == [(3, 1)]


# --- nested calls ---


def test_nested_calls_with_more_outer_calls_than_cores() -> None:
    def outer(x: int) -> int:
        def inner(y: int) -> int:
            return y * 10

        return sum(remote_parallel_map(inner, range(x)))

    assert remote_parallel_map(outer, range(20)) == [sum(range(x)) * 10 for x in range(20)]


def test_deeply_nested_calls_and_their_errors_and_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def down(depth: int) -> int:
        print("depth", depth)
        if depth == 0:
            return 1
        left: int = sum(remote_parallel_map(down, [depth - 1, depth - 1]))
        return left

    assert remote_parallel_map(down, [3]) == [8]
    assert sorted(capsys.readouterr().out.split()).count("depth") == 15

    def fail(x: int) -> Any:
        return remote_parallel_map(lambda y: 1 // y, [1, 0])

    with pytest.raises(ZeroDivisionError) as info:
        remote_parallel_map(fail, range(4))
    assert isinstance(info.value.__notes__, list)


# --- odd surroundings ---

ODD_SCRIPT = """
from burla import remote_parallel_map

def call(x):
    print("called", flush=True)
    return x * 2

results = remote_parallel_map(call, [1, 2, 3])
assert results == [2, 4, 6], results
try:
    remote_parallel_map(lambda x: 1 // x, [0])
except ZeroDivisionError:
    print("fine")
"""
FINE = "called\n" * 3 + "fine\n"
SHELLS = {
    "closed stdin": 'exec "$@" 0<&-',
    "closed stderr": 'exec "$@" 2<&-',
    "closed stdin and stderr": 'exec "$@" 0<&- 2<&-',
    "deleted directory": 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"',
    "read-only directory": 'cd /proc/self; exec "$@"',
    "no home": 'unset HOME; exec "$@"',
    "home is nowhere": 'HOME=/nowhere exec "$@"',
    "128 descriptors": 'ulimit -n 128; exec "$@"',
    "ignored signals": "trap '' HUP INT TERM CHLD USR1; exec \"$@\"",
    "umask": 'umask 777; exec "$@"',
    "warnings are errors": 'PYTHONWARNINGS=error exec "$@"',
    "ascii": 'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec "$@"',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_odd_surroundings_do_no_harm(shell: str, tmp_path: Path) -> None:
    assert succeed(ODD_SCRIPT, tmp_path, private=True, shell=SHELLS[shell]) == FINE


def test_an_empty_environment_does_no_harm(tmp_path: Path) -> None:
    assert succeed(ODD_SCRIPT, tmp_path, env={}) == FINE


@pytest.mark.parametrize("options", [["-OO"], ["-I"], ["-X", "dev"], ["-u"], ["-S"]])
def test_options_of_python_do_no_harm(options: list[str], tmp_path: Path) -> None:
    if options == ["-S"]:  # no site-packages: the caller finds burla by itself
        paths = [p for p in os.sys.path if p]  # type: ignore[attr-defined]  # sys is there
        source = f"import sys; sys.path += {paths!r}\n{ODD_SCRIPT}"
    else:
        source = ODD_SCRIPT
    source = source.replace("assert results == [2, 4, 6], results", "")
    assert succeed(source, tmp_path, private=True, options=options) == FINE


def test_a_long_tmpdir_does_no_harm(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    env = dict(os.environ) | {"TMPDIR": str(long)}
    assert succeed(ODD_SCRIPT, tmp_path, private=True, env=env) == FINE


def test_blocked_signals_do_no_harm(tmp_path: Path) -> None:
    source = """
    import signal
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    from burla import remote_parallel_map
    masks = remote_parallel_map(lambda x: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), [1])
    print(masks)
    """
    assert succeed(source, tmp_path, private=True) == "[0]\n"


def test_a_hundred_jobs_with_few_descriptors(tmp_path: Path) -> None:
    source = """
    import os
    from burla import remote_parallel_map
    def call(x):
        return x * 2
    remote_parallel_map(call, [1])
    before = len(os.listdir("/proc/self/fd"))
    for job in range(100):
        assert remote_parallel_map(call, [job, 2]) == [job * 2, 4]
    assert len(os.listdir("/proc/self/fd")) <= before
    print("fine")
    """
    assert succeed(source, tmp_path, private=True, shell='ulimit -n 128; exec "$@"') == "fine\n"


def test_a_function_may_do_what_it_likes_to_its_process(tmp_path: Path) -> None:
    """What one call leaves open or changed harms at most the calls after it, never the job."""

    def rude(x: int) -> int:
        import gc
        import signal
        import sys
        import threading

        if x == 0:
            os.closerange(3, 256)
        elif x == 1:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.alarm(100)
        elif x == 2:
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        elif x == 3:
            sys.setrecursionlimit(200)
        elif x == 4:
            gc.disable()
        elif x == 5:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        elif x == 6:
            sys.modules.pop("os", None)
        elif x == 7:
            os.chdir("/")
        return x

    assert remote_parallel_map(rude, range(8)) == list(range(8))
    assert remote_parallel_map(lambda x: x, range(8)) == list(range(8))


def test_stdin_of_the_caller_stays_the_callers(tmp_path: Path) -> None:
    source = """
    from burla import remote_parallel_map
    first = input()
    remote_parallel_map(lambda x: x, range(3))
    print(first, input())
    """
    done = run(source, tmp_path, private=True, input="one\ntwo\n")
    assert (done.stdout, done.stderr) == ("one two\n", "")


def test_modules_that_are_imported_slowly_are_imported_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        slow_module="""
        import os, time
        time.sleep(0.1)
        with open(IMPORTS, "a") as file:
            file.write(f"{os.getpid()}\\n")
        """.replace("IMPORTS", repr(str(tmp_path / "imports"))),
    )
    source = """
    import sys
    from burla import remote_parallel_map
    def call(x):
        import slow_module
        return slow_module.os.getpid()
    print(len(set(remote_parallel_map(call, range(100)))) <= 2)
    """
    assert succeed(source, tmp_path) == "True\n"
    assert len((tmp_path / "imports").read_text().split()) <= 2
