"""Workers that die in every way, and functions that leave processes behind."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import Cluster, wait_for_zygote
from marked import caller, marked_cluster
from waiting import wait_until

import burla
from burla import remote_parallel_map

pytestmark = pytest.mark.slow

KILL_EVERY_S = 0.5
BLANKS = range(4, 9)  # of a node with four CPUs: one each, and perhaps a spare one


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node with four slots."""
    with marked_cluster(tmp_path_factory.mktemp("c"), 4) as (made, _):
        wait_for_zygote(made, made.nodelets[0])
        yield made


@contextmanager
def killing(made: Cluster, at_work: Path) -> Iterator[list[int]]:
    """Kill a worker by `kill -9` every half a second; yield the list of who was.

    Calls touch a file in `at_work` that is named after their worker. Only one that has done so
    since the last kill is killed: one that loads the function may rightly be taken for its
    victim, and how long loading takes is up to how busy the machine is.
    """
    killed: list[int] = []
    chance, over = random.Random(4), threading.Event()
    zygote = psutil.Process(made.nodelets[0].pid).children()[0]

    def kill_on() -> None:
        last_ns = 0
        while not over.wait(0.01):
            workers = zygote.children(recursive=True)
            ran = {file.name for file in at_work.iterdir() if file.stat().st_mtime_ns > last_ns}
            victims = [worker for worker in workers if str(worker.pid) in ran]
            if not victims:
                continue
            victim = chance.choice(victims)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(victim.pid)
                last_ns = time.time_ns()
            over.wait(KILL_EVERY_S)

    thread = threading.Thread(target=kill_on)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_workers_are_killed_all_the_time_while_calls_run(node: Cluster, tmp_path: Path) -> None:
    def triple(x: int) -> int:
        import time

        time.sleep(0.002)
        (tmp_path / str(os.getpid())).touch()
        return x * 3

    with killing(node, tmp_path) as killed:
        assert remote_parallel_map(triple, range(8000)) == [x * 3 for x in range(8000)]
    assert killed


def test_workers_are_killed_all_the_time_in_strides_of_tiny_calls(
    node: Cluster, tmp_path: Path
) -> None:
    def spin(x: int) -> int:
        if x % 500 == 0:
            (tmp_path / str(os.getpid())).touch()
        for _ in range(300):
            x += 1
        return x - 300

    with killing(node, tmp_path) as killed:
        assert remote_parallel_map(spin, range(400_000)) == list(range(400_000))
    assert killed


def test_workers_are_killed_all_the_time_while_big_results_come(
    node: Cluster, tmp_path: Path
) -> None:
    def big(x: int) -> bytes:
        (tmp_path / str(os.getpid())).touch()
        return x.to_bytes(4, "big") * (1 << 18)

    with killing(node, tmp_path) as killed:
        seen = []
        for result in remote_parallel_map(big, range(300), generator=True):
            assert len(result) == 1 << 20
            seen.append(int.from_bytes(result[:4], "big"))
            assert result == result[:4] * (1 << 18)
    assert sorted(seen) == list(range(300))
    assert killed


def test_no_print_of_a_call_whose_result_came_is_lost_while_workers_are_killed(
    node: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def say(x: int) -> int:
        import time

        print(f"<{x}>")
        time.sleep(0.002)
        (tmp_path / str(os.getpid())).touch()
        return x

    with killing(node, tmp_path) as killed:
        assert remote_parallel_map(say, range(2000)) == list(range(2000))
    assert killed
    lines = capfd.readouterr().out.split()
    assert set(lines) == {f"<{x}>" for x in range(2000)}  # some twice: the call was repeated


def die_by_sigkill(x: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_by_exit(x: int) -> None:
    os._exit(3)


def die_by_exit_0(x: int) -> None:
    os._exit(0)


def die_by_segfault(x: int) -> None:
    import ctypes

    ctypes.string_at(0)


def die_by_abort(x: int) -> None:
    os.abort()


def die_with_group(x: int) -> None:
    os.killpg(0, signal.SIGKILL)


def die_by_sigterm(x: int) -> None:
    os.kill(0, signal.SIGTERM)
    signal.pause()


WAYS = [
    (die_by_sigkill, "signal SIGKILL"),
    (die_by_exit, "exit status 3"),
    (die_by_exit_0, "exit status 0"),
    (die_by_segfault, "signal SIGSEGV"),
    (die_by_abort, "signal SIGABRT"),
    (die_with_group, "signal SIGKILL"),
    (die_by_sigterm, "signal SIGTERM"),
]


@pytest.mark.parametrize(("die", "how"), WAYS, ids=lambda way: getattr(way, "__name__", ""))
def test_an_input_that_always_kills_its_worker_is_named(
    node: Cluster, die: Callable[[int], None], how: str
) -> None:
    def f(x: int) -> int:
        if x == 61:
            die(x)
        return x

    with pytest.raises(burla.WorkerDied) as caught:
        remote_parallel_map(f, range(100))
    assert caught.value.burla_input_index == 61
    assert caught.value.deaths == 3
    assert caught.value.how == how
    assert "input 61" in str(caught.value)
    assert how in str(caught.value)
    assert remote_parallel_map(lambda x: x + 1, range(100)) == list(range(1, 101))


def test_an_input_that_kills_its_worker_once_or_twice_is_tried_again(
    node: Cluster, tmp_path: Path
) -> None:
    def f(x: int) -> int:
        if x % 10 == 3:
            tries = tmp_path / str(x)
            with tries.open("ab") as file:
                file.write(b".")
            if tries.stat().st_size < 3:
                os.kill(os.getpid(), signal.SIGKILL)
        return x

    assert remote_parallel_map(f, range(40)) == list(range(40))
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {3}


def test_a_poison_input_among_tiny_ones_is_named_and_no_other(node: Cluster) -> None:
    def f(x: int) -> int:
        if x == 40_000:
            os._exit(9)
        return x

    with pytest.raises(burla.WorkerDied) as caught:
        remote_parallel_map(f, range(100_000))
    assert caught.value.burla_input_index == 40_000


def test_last_words_before_a_crash_are_shown(
    node: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    def f(x: int) -> None:
        print(f"going down with {x}")
        os.write(2, b"help\n")
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(burla.WorkerDied, match="Its last words:") as caught:
        remote_parallel_map(f, [5])
    assert sorted(caught.value.last_words.splitlines()) == ["going down with 5", "help"]
    out, err = capfd.readouterr()
    assert out.splitlines() == ["going down with 5"] * 3
    assert err.splitlines() == ["help"] * 3


def test_a_function_that_cannot_be_loaded_without_dying_is_an_error(node: Cluster) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os._exit, (7,)

    bomb = Bomb()
    with pytest.raises(burla.BurlaError, match="exit status 7"):
        remote_parallel_map(lambda x: (bomb, x), [1, 2, 3])
    assert remote_parallel_map(abs, [-1]) == [1]


def test_a_function_that_kills_its_parent_gets_an_error_and_the_next_call_works(
    tmp_path: Path,
) -> None:
    source = """
import os, signal, burla
from burla import remote_parallel_map

def f(x):
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()

try:
    remote_parallel_map(f, [1, 2, 3])
except burla.BurlaError as error:
    print(type(error).__name__)
print(remote_parallel_map(abs, [-1, -2]))
"""
    with caller(source, tmp_path) as script:
        status, out, err = script.wait_end(40)
    assert (status, out.splitlines()) == (0, ["ClusterError", "[1, 2]"]), err


def test_a_function_that_kills_all_that_it_runs_below_leaves_nothing(tmp_path: Path) -> None:
    source = """
import os, signal, time, burla
from burla import remote_parallel_map

def f(x):
    zygote = os.getppid()
    while x == 0 and os.getppid() == zygote:
        os.kill(zygote, signal.SIGKILL)
        time.sleep(0.001)
    if x == 0 and os.getppid() != 1:
        os.kill(os.getppid(), signal.SIGKILL)  # the nodelet
    signal.pause()

try:
    remote_parallel_map(f, [1, 0])
except burla.BurlaError as error:
    print(type(error).__name__)
print(remote_parallel_map(abs, [-1, -2]))
"""
    with caller(source, tmp_path) as script:
        status, out, err = script.wait_end(40)
    assert (status, out.splitlines()) == (0, ["ClusterError", "[1, 2]"]), err


# --- functions that fork ---


def test_a_forked_child_that_returns_from_the_function_ends_there(
    node: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def f(x: int) -> int:
        pid = os.fork()
        with (tmp_path / "log").open("a") as log:
            log.write(f"{x} {'child' if pid == 0 else 'parent'}\n")
        print(x)
        if pid:
            os.waitpid(pid, 0)
        return x if pid else -1

    assert remote_parallel_map(f, range(50)) == list(range(50))
    log = (tmp_path / "log").read_text().splitlines()
    assert sorted(log) == sorted(f"{x} {who}" for x in range(50) for who in ("child", "parent"))
    assert sorted(capfd.readouterr().out.split()) == sorted([str(x) for x in range(50)] * 2)


def test_a_forked_child_that_raises_or_exits_ends_there(node: Cluster) -> None:
    def f(x: int) -> int:
        import sys

        pid = os.fork()
        if not pid:
            if x % 2:
                sys.exit(5)
            raise ValueError(x)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert remote_parallel_map(f, range(10)) == [5 if x % 2 else 1 for x in range(10)]


def test_processes_of_multiprocessing_work_inside_a_function(node: Cluster) -> None:
    def f(x: int) -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-x, -x - 1])

    assert remote_parallel_map(f, range(4)) == [[x, x + 1] for x in range(4)]


def leave_child(x: int) -> list[int]:
    import subprocess

    return [subprocess.Popen(["sleep", "600"]).pid]


def leave_session(x: int) -> list[int]:
    import subprocess

    return [subprocess.Popen(["sleep", "600"], start_new_session=True).pid]


def leave_daemon(x: int) -> list[int]:
    """Fork twice, leave session and directory, refuse all signals: a proper daemon."""
    import time

    read, write = os.pipe()
    if not os.fork():
        os.setsid()
        if not os.fork():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.chdir("/")
            os.write(write, os.getpid().to_bytes(4, "big"))
            os.closerange(0, 64)
            time.sleep(600)
        os._exit(0)
    return [int.from_bytes(os.read(read, 4), "big")]


def leave_family(x: int) -> list[int]:
    """Leave a shell with grandchildren, each in a session of its own."""
    import subprocess

    line = "for i in 1 2 3; do setsid sleep 600 & echo $!; done; echo $$; exec sleep 600"
    with subprocess.Popen(
        ["sh", "-c", line], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        pids = [int(shell.stdout.readline()) for _ in range(4)]
        shell.wait = lambda timeout=None: 0  # type: ignore[method-assign]  # it stays
    return pids


def leave_returning_child(x: int) -> list[int]:
    """Fork a child that goes on with other things long after its parent has returned."""
    import time

    pid = os.fork()
    if not pid:
        time.sleep(600)
    return [pid]


@pytest.mark.parametrize(
    "leave", [leave_child, leave_session, leave_daemon, leave_family, leave_returning_child]
)
def test_what_a_function_leaves_behind_is_gone_after_the_job(
    node: Cluster, leave: Callable[[int], list[int]]
) -> None:
    def f(x: int) -> list[int]:
        return leave(x)

    pids = [pid for left in remote_parallel_map(f, range(4)) for pid in left]
    assert len(set(pids)) >= 4
    assert remote_parallel_map(abs, [-1]) == [1]  # else workers linger, the longer the slower it is
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), f"gone: {pids}")


def test_what_a_crashed_call_leaves_behind_is_gone_after_the_job(
    node: Cluster, tmp_path: Path
) -> None:
    def f(x: int) -> None:
        for pid in leave_session(x) + leave_daemon(x):
            (tmp_path / str(pid)).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(burla.WorkerDied):
        remote_parallel_map(f, [1])
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 6
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), f"gone: {pids}")


def test_all_that_is_left_of_this_are_blanks(node: Cluster) -> None:
    zygote = psutil.Process(node.nodelets[0].pid).children()[0]

    def only_blanks() -> bool:
        below = zygote.children(recursive=True)
        return len(below) in BLANKS and {child.ppid() for child in below} == {zygote.pid}

    wait_until(only_blanks, "blanks and nothing else")
