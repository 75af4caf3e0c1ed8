"""From wherever and however it is called, remote_parallel_map behaves like a plain function."""

import asyncio
import gc
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, cluster
from scripts import run, started, succeed, unasked, wait_for_lines
from waiting import LATE_S, wait_until

from burla import ClusterError, ClusterUnreachable, Unsatisfiable, remote_parallel_map
from burla.errors import BadSetting
from burla.transport.addresses import full_address
from burla.transport.keys import load_or_make_pair, make_pair

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def double(x: int) -> int:
    return x * 2


# --- from where ---


def test_inside_a_running_event_loop() -> None:
    async def main() -> list[int]:
        inside = remote_parallel_map(lambda x: x * 2, [1, 2])
        beside = await asyncio.to_thread(remote_parallel_map, lambda x: x * 2, [3])
        return inside + beside

    assert asyncio.run(main()) == [2, 4, 6]


@pytest.mark.parametrize("private", [False, True])
def test_from_several_threads_at_once_the_first_call_of_all(private: bool, tmp_path: Path) -> None:
    source = """
    import threading
    from burla import remote_parallel_map
    results = {}
    def call(n):
        results[n] = remote_parallel_map(lambda x: (n, x), range(n * 10))
    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        assert results[n] == [(n, x) for x in range(n * 10)]
    print("fine")
    """
    assert succeed(source, tmp_path, private=private) == "fine\n"


def test_the_first_call_of_a_thread_that_soon_ends(tmp_path: Path) -> None:
    """The cluster that it starts belongs to the process, not to the thread."""
    source = """
    import threading
    from burla import remote_parallel_map
    def call():
        print(remote_parallel_map(lambda x: x * 2, [1]))
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    for _ in range(3):
        call()
    """
    assert succeed(source, tmp_path, private=True) == "[2]\n" * 4


@pytest.mark.parametrize("private", [False, True])
def test_in_a_forked_child(private: bool, tmp_path: Path) -> None:
    source = """
    import os, sys, warnings
    from burla import remote_parallel_map
    def call():
        return remote_parallel_map(lambda x: x * 2, [1, 2])
    assert call() == [2, 4]
    warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: there are threads
    pid = os.fork()
    if pid == 0:
        print("child", call(), flush=True)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print("parent", call())
    """
    expected = "child [2, 4]\nparent [2, 4]\n"
    assert succeed(source, tmp_path, private=private) == expected


def test_in_children_of_multiprocessing(tmp_path: Path) -> None:
    source = """
    import multiprocessing
    from burla import remote_parallel_map
    def call(n):
        return remote_parallel_map(double, range(n))
    def double(x):
        return x * 2
    if __name__ == "__main__":
        call(2)
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                assert pool.map(call, [1, 2, 3]) == [[0], [0, 2], [0, 2, 4]]
        print("fine")
    """
    assert succeed(source, tmp_path) == "fine\n"


def test_in_an_exit_handler_and_a_signal_handler(tmp_path: Path) -> None:
    source = """
    import atexit, os, signal
    from burla import remote_parallel_map
    def call(x):
        return x * 2
    def handler(number, frame):
        print("signal", remote_parallel_map(call, [1]))
    signal.signal(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    atexit.register(lambda: print("exit", remote_parallel_map(call, [2])))
    """
    assert succeed(source, tmp_path, private=True) == "signal [2]\nexit [4]\n"


def test_a_call_inside_the_inputs_of_another() -> None:
    def inputs() -> Iterator[int]:
        for _ in range(3):
            yield from remote_parallel_map(lambda x: x + 1, [1, 2])

    assert remote_parallel_map(lambda x: x * 10, inputs()) == [20, 30] * 3


def test_two_generators_taken_in_turn() -> None:
    one = remote_parallel_map(lambda x: x, range(500), generator=True)
    two = remote_parallel_map(lambda x: -x, range(500), generator=True)
    pairs = list(zip(one, two, strict=True))
    assert sorted(a for a, _ in pairs) == list(range(500))
    assert sorted(-b for _, b in pairs) == list(range(500))


# --- generators ---


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("x\n")


def test_a_generator_starts_at_the_call(tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")

    def call(x: int) -> int:
        note(begun)
        return x

    results = remote_parallel_map(call, [1, 2, 3], generator=True)
    wait_for_lines(Path(begun), 3)
    assert sorted(results) == [1, 2, 3]


@pytest.mark.parametrize("how", ["close", "drop", "drop unread", "throw"])
def test_ending_a_generator_cancels_the_rest(how: str, tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")

    def call(x: int) -> int:
        with open(begun, "a") as file:
            file.write("x\n")
        time.sleep(0.01)
        return x

    results: Any = remote_parallel_map(call, itertools.count(), generator=True)
    wait_for_lines(Path(begun), 3)
    if how != "drop unread":
        next(results)
    if how == "close":
        results.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            results.throw(KeyError("mine"))
    else:
        del results
        gc.collect()
    assert remote_parallel_map(lambda x: x, [1]) == [1]  # the node is free again
    count = len(Path(begun).read_text())
    assert remote_parallel_map(lambda x: time.sleep(0.1), [1, 2]) == [None, None]
    assert len(Path(begun).read_text()) == count


def test_a_stuck_call_of_a_closed_generator_is_stopped(tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")

    def stuck(x: int) -> None:
        with open(begun, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(60)

    results: Any = remote_parallel_map(stuck, [1], generator=True)
    (pid,) = wait_for_lines(Path(begun), 1)
    results.close()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the call is stopped")


# --- inputs ---


def test_no_inputs_start_nothing(tmp_path: Path) -> None:
    source = """
    import psutil
    from burla import remote_parallel_map
    for empty in ([], (), range(0), iter([]), {}, "", (x for x in [])):
        assert remote_parallel_map(print, empty) == []
    assert list(remote_parallel_map(print, [], generator=True)) == []
    print(psutil.Process().children())
    """
    assert succeed(source, tmp_path, private=True) == "[]\n"


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("at", [0, 3, 5000])
def test_an_error_of_the_inputs_comes_out_as_it_is(generator: bool, at: int) -> None:
    error = LookupError("mine")

    def inputs() -> Iterator[int]:
        yield from range(at)
        raise error

    with pytest.raises(LookupError) as info:
        list(remote_parallel_map(lambda x: x, inputs(), generator=generator))
    assert info.value is error
    assert not hasattr(error, "burla_input_index")
    assert remote_parallel_map(lambda x: x, [1]) == [1]


def test_a_list_that_gets_shorter_has_a_result_for_each_input_that_was_there() -> None:
    class Shortens:
        def __reduce__(self) -> tuple[type[int], tuple[int]]:
            del inputs[100:]
            return int, (0,)

    inputs: list[Any] = [Shortens(), *range(1, 1000)]
    assert remote_parallel_map(double, inputs) == list(range(0, 200, 2))


def test_inputs_are_advanced_in_the_calling_thread() -> None:
    threads = set()

    def inputs() -> Iterator[int]:
        for x in range(1000):
            threads.add(threading.current_thread())
            yield x

    assert remote_parallel_map(lambda x: x, inputs()) == list(range(1000))
    assert threads == {threading.current_thread()}


def test_calls_begin_while_the_inputs_still_come(tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")

    def inputs() -> Iterator[int]:
        yield 1
        wait_for_lines(Path(begun), 1)  # the first call runs before the second input is known
        yield 2

    def call(x: int) -> int:
        with open(begun, "a") as file:
            file.write("x\n")
        return x

    assert list(remote_parallel_map(call, inputs(), generator=True)) == [1, 2]
    Path(begun).unlink()
    assert remote_parallel_map(call, inputs()) == [1, 2]


def test_tuples_are_unpacked_where_the_function_wants_it() -> None:
    assert remote_parallel_map(lambda a, b: a + b, [(1, 2), (3, 4)]) == [3, 7]
    assert remote_parallel_map(lambda pair: pair[0], [(1, 2)]) == [1]
    assert remote_parallel_map(lambda *all_: all_, [(1, 2)], unpack=True) == [(1, 2)]


# --- limits ---


def running_at_once(directory: Path, expected: int, **limits: Any) -> int:
    """Return how many calls ran at the same time at most; they wait for as many as expected.

    Nodes may be slow to begin.
    """
    directory.mkdir()
    here, reached, late_s = str(directory), f"{directory}.reached", LATE_S

    def call(x: int) -> int:
        mine = os.path.join(here, str(x))
        open(mine, "w").close()
        most, until_s, looks = 0, time.monotonic() + late_s, 10
        while looks and time.monotonic() < until_s:
            most = max(most, len(os.listdir(here)))
            if most >= expected:
                open(reached, "w").close()
            looks -= os.path.exists(reached)  # then see for a moment if there are more
            time.sleep(0.01)
        os.unlink(mine)
        return most

    found: list[int] = remote_parallel_map(call, range(3 * expected), **limits)
    return max(found)


def test_limits_on_how_many_run_at_once_are_exact(tmp_path: Path) -> None:
    directory = tmp_path / "wide"
    directory.mkdir()
    with cluster(directory, 8, 8) as wide:
        wide.add_node(4, "--ram", "8")
        cases: list[tuple[dict[str, Any], int]] = [
            ({}, 20),
            ({"max_parallelism": 3}, 3),
            ({"max_parallelism": 1}, 1),
            ({"func_cpu": 3}, 5),
            ({"func_cpu": 8}, 2),
            ({"func_cpu": 4, "max_parallelism": 4}, 4),
        ]
        assert remote_parallel_map(lambda x: x, range(100)) == list(range(100))
        for number, (limits, most) in enumerate(cases):
            found = running_at_once(tmp_path / str(number), most, **limits)
            assert found == most, limits


def test_func_ram_limits_slots(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    with cluster(directory) as small:
        small.add_node(8, "--ram", "2")
        assert running_at_once(tmp_path / "a", 2, func_ram=0.7) == 2
        assert running_at_once(tmp_path / "b", 1, func_ram=2) == 1


def test_what_no_node_could_satisfy_fails_soon_and_names_the_argument() -> None:
    found: dict[str, Any] = {}

    def call(limits: dict[str, Any]) -> None:
        begun = time.monotonic()
        with pytest.raises(Unsatisfiable) as info:
            remote_parallel_map(lambda x: x, [1], **limits)
        found[repr(limits)] = info.value.argument, time.monotonic() - begun < 10  # promised

    cases: list[dict[str, Any]] = [
        {"func_cpu": 1000},
        {"func_cpu": 10**30},
        {"func_ram": 1e6},
        {"func_ram": 10**30},
    ]
    threads = [threading.Thread(target=call, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {repr(case): (next(iter(case)), True) for case in cases}


def test_a_job_that_waits_says_why(shared: Cluster, tmp_path: Path) -> None:
    """The second job finds the only node leased; the first one ends when that was said."""
    source = f"""
    import os, time
    from burla import remote_parallel_map
    def wait_for_go(x):
        open({str(tmp_path / "begun")!r} + str(x), "w").close()
        while not os.path.exists({str(tmp_path / "go")!r}):
            time.sleep(0.01)
    remote_parallel_map(wait_for_go, [0, 1], spinner=False)
    """
    waiting = """
    from burla import remote_parallel_map
    def second(x):
        return x
    print(remote_parallel_map(second, [1]))
    """
    second_directory = tmp_path / "second"
    second_directory.mkdir()
    with started(source, tmp_path) as first:
        wait_until(lambda: (tmp_path / "begun1").exists(), "the first job runs")
        with started(waiting, second_directory) as second:
            assert second.stderr is not None
            said = second.stderr.readline()
            (tmp_path / "go").touch()
            out, err = second.communicate(timeout=50)
        assert said.startswith("burla: second waits: ")
        assert (out, unasked(err)) == ("[1]\n", "")
        assert first.communicate(timeout=50) == ("", "")


def test_a_job_without_any_node_says_so(tmp_path: Path) -> None:
    with (
        cluster(tmp_path) as empty,
        started(
            "from burla import remote_parallel_map\nprint(remote_parallel_map(abs, [-1]))",
            tmp_path,
        ) as script,
    ):
        assert script.stderr is not None
        said = script.stderr.readline()
        assert said.startswith("burla: abs waits: ")
        assert "node" in said
        empty.add_node(1)
        out, err = script.communicate(timeout=50)
        assert (out, unasked(err)) == ("[1]\n", "")


# --- addresses ---


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "http://127.0.0.1:80"],
)
def test_a_malformed_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", address)
    with pytest.raises(BadSetting, match="BURLA_CLUSTER") as info:
        remote_parallel_map(lambda x: x, [1])
    assert repr(address) in str(info.value)


def test_a_silent_address_is_an_error_that_repeats_it(tmp_path: Path) -> None:
    source = """
    import os, sys, time
    import burla.calling  # as the first call does
    from burla import ClusterUnreachable, remote_parallel_map
    begun = time.monotonic()
    try:
        remote_parallel_map(abs, [-1])
    except ClusterUnreachable as error:
        assert os.environ["BURLA_CLUSTER"] in str(error), error
    assert time.monotonic() - begun < 10
    print("fine")
    """
    with socket.socket() as mute, socket.socket() as full:
        for one in (mute, full):
            one.bind(("127.0.0.1", 0))
        mute.listen()  # takes connections and never says a word
        key = make_pair().public
        ports = [one.getsockname()[1] for one in (mute, full)]
        addresses = [full_address(f"tcp://127.0.0.1:{port}", key) for port in ports]
        addresses.append(f"ipc://{tmp_path}/nobody")
        scripts = []
        for number, address in enumerate(addresses):
            directory = tmp_path / str(number)
            directory.mkdir()
            load_or_make_pair(str(tmp_path / "user.key"), "a test")
            env = dict(os.environ) | {"BURLA_CLUSTER": address, "BURLA_CONFIG_DIR": str(tmp_path)}
            scripts.append(started(source, directory, env=env))
        entered = [script.__enter__() for script in scripts]
        try:
            for process in entered:
                out, err = process.communicate(timeout=50)
                assert (out, err.count("Traceback")) == ("fine\n", 0), err
        finally:
            for script in scripts:
                script.__exit__(None, None, None)


def test_all_errors_of_a_cluster_are_one_kind() -> None:
    assert issubclass(ClusterUnreachable, ClusterError)


def test_tcp_works_as_ipc_does(tmp_path: Path) -> None:
    with cluster(tmp_path, 2, bind="tcp://127.0.0.1:0") as made:
        assert made.address.startswith("burla://127.0.0.1:")
        done = run(
            "from burla import remote_parallel_map as m\nprint(m(lambda x: print(x), range(3)))",
            tmp_path,
        )
    assert sorted(done.stdout.split("\n")[:3]) == ["0", "1", "2"]
    assert done.stdout.endswith("[None, None, None]\n")
    assert unasked(done.stderr) == ""
