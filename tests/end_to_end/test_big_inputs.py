"""Big values on the private cluster lie in memory that both sides map; nothing of it is left."""

import os
from pathlib import Path

import pytest
from scripts import succeed
from waiting import wait_until

pytestmark = pytest.mark.slow

BEGIN = """
import gc, itertools, os, stat, sys, time, warnings
from contextlib import suppress
import numpy as np
from burla import remote_parallel_map

MB = 1 << 20

def left():
    "Return the files of our jobs, but for those that wait for the next one, or that we hold."
    return [name for name in files() if "/free" not in name and "/held" not in name]

def files():
    memory = f"burla-{os.getpid()}-"
    return [
        os.path.join(parent, name)
        for top in os.listdir("/dev/shm") if top.startswith(memory)
        for parent, directories, files in os.walk(f"/dev/shm/{top}")
        for name in (*files, *directories)
    ]

def wait(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
"""

COPIES = """
def use(array):
    array += 1  # its own copy
    return os.path.exists("/dev/shm"), float(array[0]), float(array.sum())

arrays = [np.full(1 << 18, float(n)) for n in range(200)]  # 400 MB: more than lie there at once
results = remote_parallel_map(use, arrays)
assert [first for _, first, _ in results] == [n + 1.0 for n in range(200)]
assert [total for _, _, total in results] == [(n + 1.0) * (1 << 18) for n in range(200)]
assert all((array == n).all() for n, array in enumerate(arrays))
assert left() == [], left()
assert 0 < sum(map(os.path.getsize, files())) <= 128 * MB
ENDING
"""

KEPT = """
kept = []

def keep(array):
    "Return whether all arrays that this worker has seen are what they were, but for its own change"
    kept.append((array[1], array))
    array[0] += 1
    return array[1], all(own[0] == n + 1 and (own[1:] == n).all() for n, own in kept), len(kept)

inputs = (np.full(1 << 17, float(n)) for n in range(300))
results = remote_parallel_map(keep, inputs, max_parallelism=2)
assert [n for n, _, _ in results] == list(range(300))
assert all(right for _, right, _ in results)
assert max(count for _, _, count in results) > 100
"""

RETRIED = """
def change_and_die(task):
    array, mark = task
    array += 1
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return array
    os.kill(os.getpid(), 9)

tasks = [(np.full(1 << 18, float(n)), os.path.abspath(f"{n}.mark")) for n in range(3)]
results = remote_parallel_map(change_and_die, tasks)
assert [(array == n + 1).all() for n, array in enumerate(results)] == [True] * 3
assert left() == []
"""

ECHO = """
arrays = [np.full(1 << 18, float(n)) for n in range(50)]
results = remote_parallel_map(lambda array: array, arrays)
again = remote_parallel_map(lambda array: array, results)
for result in (*results, *again):
    result += 1
assert all((array == n).all() for n, array in enumerate(arrays))
assert all((array == n + 1).all() for n, array in enumerate(results))
assert all((array == n + 1).all() for n, array in enumerate(again))
shared = np.zeros(1 << 18)

def reuse(n):
    shared[:] = n
    return shared, n

for n, (array, _) in enumerate(remote_parallel_map(reuse, range(20))):
    assert (array == n).all()
texts = remote_parallel_map(lambda n: (str(n) * MB, bytes([n]) * MB), range(10))
assert texts == [(str(n) * MB, bytes([n]) * MB) for n in range(10)]
"""

LEAKS = """
def opened():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # another thread has closed it
            found += not stat.S_ISDIR(os.stat(f"/proc/self/fd/{number}").st_mode)  # it lists some
    return found

def held():
    gc.collect()
    maps = [line for line in open("/proc/self/maps") if "/dev/shm/burla-" in line]
    shared = sum("rw-s" in line for line in maps)  # where inputs are written anew
    files_of_results = sum("/held/" in name for name in files())
    return len(maps) - shared, files_of_results, shared, opened(), left()

arrays = [np.full(1 << 17, n) for n in range(2)]

def call(function):
    results = remote_parallel_map(function, arrays)
    assert [(result == n).all() for n, result in enumerate(results)] == [True, True]
    return results

for function, count in ((lambda array: array + 0, 2), (lambda array: array, 0)):
    results = call(function)
    assert held()[:2] == (2, count)  # they are mapped; where they are inputs, in files of these
    results.clear()
    call(function)
    before = held()
    assert before[:2] == (0, 0)
    for _ in range(150):
        call(function)
    assert held() == before, (before, held())
"""

ENDS = """
def fail(n):
    if n == 30:
        raise KeyError(n)
    return np.full(1 << 18, n)

try:
    remote_parallel_map(fail, range(100))
except KeyError:
    assert left() == [], left()
else:
    raise AssertionError
results = remote_parallel_map(lambda n: np.full(1 << 18, n), itertools.count(), generator=True)
first = [next(results) for _ in range(5)]
results.close()
assert left() == [], left()
assert all((array == array[0]).all() for array in first)
remote_parallel_map(len, [b"x" * MB])  # by now the workers of the others are gone
assert left() == [], left()
"""

LOOP = """
def compute(array):
    array += 1
    return array

state = [np.full(1 << 18, float(n)) for n in range(8)]
gc.disable()  # what is let go of is free at once, whatever a map leaves behind
early = remote_parallel_map(compute, state)
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: there are threads
child = os.fork()
if child == 0:
    time.sleep(2)
    os._exit(not all((array == n + 1).all() for n, array in enumerate(early)))
first, early = early[0], None
for turn in range(1, 30):
    state = remote_parallel_map(compute, state)
    assert [float(array.min()) for array in state] == [n + turn for n in range(8)], turn
    assert [float(array.max()) for array in state] == [n + turn for n in range(8)], turn
assert (first == 1).all()
assert os.waitpid(child, 0)[1] == 0
assert sum("/held/" in name for name in files()) == 9
assert left() == [], left()
"""

NOT_READ = """
begun = os.path.abspath("begun")

def give(n):
    with open(begun, "a") as file:
        file.write("x")
    return bytes(MB)

results = remote_parallel_map(give, range(10**9), generator=True)
next(results)
sizes = []

def stands_still():
    sizes.append(os.stat(begun).st_size)
    time.sleep(0.2)
    return len(sizes) > 5 and sizes[-1] == sizes[-5]

wait(stands_still)
assert 200 < sizes[-1] < 1000, sizes
assert sum(map(os.path.getsize, left()[1:])) <= (256 + os.cpu_count()) * MB
assert sum(len(next(results)) for _ in range(600)) == 600 * MB  # and go on
results.close()
"""

CHILD = """
def compute(n):
    return np.full(1 << 18, n)

results = remote_parallel_map(compute, range(200), generator=True)
first = next(results)
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: there are threads
child = os.fork()
if child == 0:
    results.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
rest = list(results)
assert len(rest) == 199
assert sorted(int(array[-1]) for array in (first, *rest)) == list(range(200))
"""


def left_of(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"burla-{pid}-")]


@pytest.mark.parametrize(
    "ending", ["print(os.getpid())", "print(os.getpid(), flush=True); os._exit(0)"]
)
def test_nothing_is_left_in_memory(ending: str, tmp_path: Path) -> None:
    script = BEGIN + COPIES.replace("ENDING", ending)
    pid = int(succeed(script, tmp_path, private=True))
    wait_until(lambda: not left_of(pid), "the directory in memory is gone")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(KEPT, id="inputs-that-are-kept-stay-what-they-are"),
        pytest.param(RETRIED, id="an-input-that-is-tried-again-is-as-it-was"),
        pytest.param(ECHO, id="results-are-copies-that-may-be-written-to"),
        pytest.param(LEAKS, id="two-hundred-calls-leave-nothing"),
        pytest.param(ENDS, id="what-fails-or-is-closed-leaves-nothing"),
        pytest.param(LOOP, id="files-of-results-that-are-used-again-change-nobody-s"),
        pytest.param(NOT_READ, id="results-that-nobody-takes-are-bounded"),
        pytest.param(CHILD, id="a-forked-child-takes-nothing-away"),
    ],
)
def test_big_values(script: str, tmp_path: Path) -> None:
    succeed(BEGIN + script, tmp_path, private=True, cwd=tmp_path)
