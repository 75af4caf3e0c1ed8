"""The same map again and again: the same processes, and a function as it stands at each call."""

import os
import time
from pathlib import Path

import psutil
import pytest
from clusters import Cluster, cluster, wait_for_zygote
from scripts import succeed
from waiting import LATE_S, wait_gone

from burla import remote_parallel_map
from burla.scheduler.core.warm_leases import WARM_S_MAX

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared")]


def test_a_loop_of_maps_runs_in_the_same_processes(tmp_path: Path) -> None:
    def pid(folder: Path, x: int) -> int:
        (folder / str(x)).touch()
        while len(list(folder.iterdir())) < 2:  # so both workers get one
            time.sleep(0.001)
        return os.getpid()

    def both(name: str) -> set[int]:
        folder = tmp_path / name
        folder.mkdir()
        return set(remote_parallel_map(pid, [(folder, 0), (folder, 1)]))

    first = both("first")
    assert len(first) == 2
    for turn in range(5):
        assert both(str(turn)) == first


def test_another_function_or_other_options_mean_other_processes() -> None:
    def pid(x: int) -> int:
        return os.getpid()

    pids = [
        *remote_parallel_map(pid, [1]),
        *remote_parallel_map(lambda x: os.getpid(), [1]),
        *remote_parallel_map(pid, [1], func_cpu=2),
        *remote_parallel_map(pid, [1], max_parallelism=1),
    ]
    assert len(set(pids)) == 4


def test_a_function_that_refers_to_something_else_now_is_another_function() -> None:
    factor = 2

    def scaled(x: int) -> tuple[int, int]:
        return x * factor, os.getpid()

    (first, one) = remote_parallel_map(scaled, [1])[0]
    factor = 3
    (second, other) = remote_parallel_map(scaled, [1])[0]
    assert (first, second) == (2, 3)
    assert one != other


def test_globals_closures_and_caches_are_those_of_the_call(tmp_path: Path) -> None:
    source = """
    import functools, os
    from burla import remote_parallel_map

    calls = []

    @functools.lru_cache
    def cached(x):
        calls.append(x)
        return len(calls)

    def f(x):
        return cached(x), len(calls), os.getpid()

    seen = [remote_parallel_map(f, [7, 7])[-1] for _ in range(12)]
    print(max(s[:2] for s in seen), len({s[2] for s in seen}) < 12)
    """
    assert succeed(source, tmp_path) == "(1, 1) True\n"


@pytest.mark.parametrize("private", [False, True])
def test_the_callers_own_modules_are_read_anew(private: bool, tmp_path: Path) -> None:
    """Where they travel, a function with other modules is another one."""
    source = """
    import os, sys
    from burla import remote_parallel_map
    sys.dont_write_bytecode = True

    def f(x):
        import helper
        return helper.WORD, os.getpid()

    got = []
    for word in "one", "two":
        with open("helper.py", "w") as file:
            file.write(f"WORD = {word!r}")
        got += remote_parallel_map(f, [1])
    print([word for word, _ in got], got[0][1] == got[1][1])
    """
    expected = f"['one', 'two'] {private}\n"
    assert succeed(source, tmp_path, cwd=tmp_path, private=private) == expected


def test_each_job_has_its_own_id_in_the_environment() -> None:
    def job(x: int) -> str:
        return os.environ["BURLA_JOB_ID"]

    assert len({remote_parallel_map(job, [1])[0] for _ in range(3)}) == 3


@pytest.mark.timeout(WARM_S_MAX + 2 * LATE_S)
def test_workers_that_nobody_comes_back_to_are_gone_soon(shared: Cluster) -> None:
    """They wait for ten times as long as the job took: on a busy machine for up to a minute."""
    (pid,) = remote_parallel_map(lambda x: os.getpid(), [1])
    worker = psutil.Process(pid)
    wait_gone([worker], WARM_S_MAX + LATE_S)
    wait_for_zygote(shared, shared.nodelets[0])


def test_workers_of_a_caller_that_has_ended_are_gone_soon(tmp_path: Path) -> None:
    source = """
    import os
    from burla import remote_parallel_map
    print(*remote_parallel_map(lambda x: os.getpid(), [1]))
    """
    pid = int(succeed(source, tmp_path))
    if psutil.pid_exists(pid):
        wait_gone([psutil.Process(pid)])


def test_a_worker_killed_while_it_waits_does_not_matter() -> None:
    def pid(x: int) -> int:
        return os.getpid()

    (first,) = remote_parallel_map(pid, [1])
    psutil.Process(first).kill()
    assert remote_parallel_map(pid, [1]) != [first]


HEAVY = """
import os, threading, time
with open({imports!r}, "a") as file:
    file.write("x")
{begin}
time.sleep(0.3)
"""


@pytest.mark.parametrize("bytes_", [0, 3 << 20])
@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("private", [True, False])
def test_a_loop_imports_what_is_slow_once_a_worker(
    tmp_path: Path, bytes_: int, threads: bool, private: bool
) -> None:
    """Maps that end while other workers still load: those that are there go on, and the others.

    A thread forbids to fork workers from the first one.
    """
    installed = tmp_path / "site-packages"
    installed.mkdir()
    begin = "threading.Thread(target=time.sleep, args=(100,), daemon=True).start()"
    imports = str(tmp_path / "imports")
    heavy = HEAVY.format(imports=imports, begin=begin if threads else "")
    (installed / "heavy.py").write_text(heavy)
    source = f"""
    import os, sys
    sys.path.insert(0, {str(installed)!r})
    import heavy
    from burla import remote_parallel_map
    os.truncate({imports!r}, 0)
    data = bytes({bytes_})

    def f(x):
        return heavy.__name__, len(data)

    for _ in range(8):
        assert remote_parallel_map(f, range(8)) == [("heavy", {bytes_})] * 8
    print(os.stat({imports!r}).st_size <= 2)
    """
    assert succeed(source, tmp_path, private=private) == "True\n"


def test_what_calls_begin_with_importing_is_imported_once_a_node(tmp_path: Path) -> None:
    """The workers are forked from one that has it; the error of an import is that of the calls."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    workers = tmp_path / "workers"
    workers.mkdir()
    imports = str(tmp_path / "imports")
    (installed / "heavy.py").write_text(HEAVY.format(imports=imports, begin=""))
    (installed / "broken.py").write_text("raise OSError('not here')")
    source = f"""
    import os, sys, time
    sys.path.insert(0, {str(installed)!r})
    from burla import remote_parallel_map

    def f(x):
        import heavy
        open(f"{workers}/{{os.getpid()}}", "w").close()
        while len(os.listdir({str(workers)!r})) < 2:  # so both workers get one
            time.sleep(0.001)
        return heavy.__name__, os.getpid()

    def g(x):
        import broken

    got = remote_parallel_map(f, range(8))
    print({{name for name, _ in got}}, len({{pid for _, pid in got}}), os.stat({imports!r}).st_size)
    try:
        remote_parallel_map(g, [1])
    except OSError as error:
        print(error)
    """
    assert succeed(source, tmp_path) == "{'heavy'} 2 1\nnot here\n"


def test_a_loop_of_other_functions_imports_only_in_its_first_maps(tmp_path: Path) -> None:
    """Each map has processes of its own, and a package that was changed is imported anew."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    imports = str(tmp_path / "imports")
    (installed / "heavy.py").write_text(HEAVY.format(imports=imports, begin=""))
    source = f"""
    import os, sys, time
    sys.path.insert(0, {str(installed)!r})
    from burla import remote_parallel_map

    def run(number):
        def f(x):
            import heavy
            return getattr(heavy, "WORD", ""), number, os.getpid()

        before = os.stat({imports!r}).st_size if os.path.exists({imports!r}) else 0
        ((word, got, pid),) = remote_parallel_map(f, [1])
        assert got == number and pid not in pids
        pids.add(pid)
        return word, os.stat({imports!r}).st_size - before

    pids = set()
    until = time.monotonic() + 60
    while run(len(pids)) != ("", 0):
        assert time.monotonic() < until
    print(run(100), run(101), len(pids) >= 5)
    with open({str(installed / "heavy.py")!r}, "a") as file:
        file.write("WORD = 'new'")
    print(run(102))
    """
    assert succeed(source, tmp_path, private=True) == "('', 0) ('', 0) True\n('new', 1)\n"


def test_an_own_module_that_was_looked_for_ahead_is_what_an_import_finds(tmp_path: Path) -> None:
    """Where what was imported ahead had none, a worker of a job with one imports anew."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    imports = str(tmp_path / "imports")
    looks = "try:\n    from aa_settings import WORD\nexcept ImportError:\n    WORD = 'none'\n"
    (installed / "heavy.py").write_text(HEAVY.format(imports=imports, begin="") + looks)
    source = f"""
    import os, sys, time
    sys.path.insert(0, {str(installed)!r})
    from burla import remote_parallel_map

    def count(function):
        before = os.stat({imports!r}).st_size if os.path.exists({imports!r}) else 0
        (word,) = remote_parallel_map(function, [1])
        return word, os.stat({imports!r}).st_size - before

    def without(number):
        def f(x):
            import heavy
            return heavy.WORD * bool(number)

        return f

    def f(x):
        import heavy, aa_settings
        return heavy.WORD

    until = time.monotonic() + 60
    number = 1
    while count(without(number)) != ("none", 0):
        assert time.monotonic() < until
        number += 1
    with open({str(tmp_path / "aa_settings.py")!r}, "w") as file:
        file.write("WORD = 'own'")
    print(count(f), count(without(number + 1)))
    """
    (tmp_path / "c").mkdir()
    with cluster(tmp_path / "c", 2):
        assert succeed(source, tmp_path) == "('own', 1) ('none', 1)\n"
