"""The private cluster of a process: started once, hardly in the way of anything, gone at the end.

Each test runs a script of its own, since a cluster lives as long as its process.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from waiting import LATE_S, running, wait_gone, wait_until

import burla
from burla.private_cluster import LocalCluster
from burla.system.owner import memory_of, this_host
from burla.system.procfs import process_started

pytestmark = pytest.mark.slow

GONE_S = 10.0  # what a kill -9 may leave behind, and for how long on a busy machine
START = """
import json, os, sys, threading, time
from burla.private_cluster import private_cluster
cluster = private_cluster()
assert cluster.wait_listening(20), cluster.failed()
"""
TELL = """
import psutil
def tell(cluster):
    daemons = [p.pid for p in psutil.Process().children()]
    print(json.dumps([cluster.address, daemons]), flush=True)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """Return an empty directory that is short enough for sockets in it, to be empty at the end."""
    directory = Path(tempfile.mkdtemp(prefix="bl", dir="/tmp"))
    yield directory
    left = list(directory.iterdir())
    shutil.rmtree(directory, ignore_errors=True)
    assert left == []


@contextlib.contextmanager
def script(
    text: str, base: Path, *arguments: str, shell: Sequence[str] = (), **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run a script that starts a cluster below `base`."""
    options.setdefault("env", os.environ | {"TMPDIR": str(base)})
    line = [*shell, sys.executable, "-c", textwrap.dedent(text), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has been waited for


def told(process: subprocess.Popen[str]) -> tuple[Path, list[psutil.Process]]:
    """Return the directory and all processes of a cluster that the script told of."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    address, pids = json.loads(line)
    daemons = [psutil.Process(pid) for pid in pids]
    below = [child for daemon in daemons for child in daemon.children(recursive=True)]
    return Path(address.removeprefix("ipc://")).parent, daemons + below


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a script printed; it must have gone well and said nothing on stderr."""
    out, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    return out


def test_it_is_started_once_and_is_gone_with_the_process(base: Path) -> None:
    text = START + TELL + "assert private_cluster() is cluster; tell(cluster); input()"
    with script(text, base) as process:
        directory, processes = told(process)
        assert directory.parent == base
        assert directory.stat().st_mode & 0o777 == 0o700
        assert len(processes) >= 2
        assert len(running(processes)) == len(processes)
        assert process.stdin is not None
        process.stdin.write("\n")
        assert finish(process) == ""
    wait_gone(processes, 0.1)  # it has waited for them


def test_one_whose_workers_wait_for_the_next_map_ends_by_itself_when_it_is_told_to(
    base: Path,
) -> None:
    text = """
    import burla
    assert burla.remote_parallel_map(lambda x: x, [1, 2]) == [1, 2]
    cluster.end()
    print(cluster._daemon.returncode)
    """
    with script(START + textwrap.dedent(text), base) as process:
        assert finish(process) == "0\n"  # it was not cut off


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_nothing(number: signal.Signals, base: Path) -> None:
    with script(START + TELL + "tell(cluster); input()", base) as process:
        directory, processes = told(process)
        process.send_signal(number)
        assert process.wait() == -number
        wait_gone(processes, GONE_S)
        wait_until(lambda: not directory.exists(), "the directory is gone", GONE_S)


def test_a_process_killed_in_the_middle_of_the_start_leaves_nothing(base: Path) -> None:
    text = """
    import os, signal, subprocess
    from burla import private_cluster
    private_cluster.private_cluster()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with script(text, base) as process:
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: not list(base.iterdir()), "the directory is gone", GONE_S)


def test_sys_exit_in_the_middle_leaves_nothing_and_keeps_its_code(base: Path) -> None:
    with script(START + "sys.exit(7)", base) as process:
        assert process.communicate()[1] == ""
        assert process.returncode == 7
    assert list(base.iterdir()) == []


def test_threads_at_once_get_one_cluster_also_if_they_are_short_lived(base: Path) -> None:
    text = (
        """
import json, os, sys, threading
from burla.private_cluster import private_cluster
found = []
barrier = threading.Barrier(8)
def ask():
    barrier.wait()
    found.append(private_cluster())
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(set(map(id, found))) == 1
assert found[0].wait_listening(20)
"""
        + TELL
        + """
tell(found[0])
input()
assert found[0].failed() is None
"""
    )
    with script(text, base) as process:
        directory, processes = told(process)
        assert list(base.iterdir()) == [directory]
        assert len(running(processes)) == len(processes)
        process.communicate("\n")
        assert process.returncode == 0


def test_a_forked_child_starts_its_own_and_leaves_its_parents_alone(base: Path) -> None:
    text = (
        START
        + """
pid = os.fork()  # the cluster must not have started a thread here: Python would warn
if pid == 0:
    own = private_cluster()
    assert own is not cluster and own.address != cluster.address
    assert own.wait_listening(20), own.failed()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert cluster.failed() is None
assert os.path.exists(cluster.address.removeprefix("ipc://"))
assert private_cluster() is cluster
"""
    )
    with script(text, base) as process:
        finish(process)


def test_a_child_of_multiprocessing_starts_its_own_which_ends_with_it(base: Path) -> None:
    text = (
        START
        + """
import multiprocessing
def child():
    own = private_cluster()
    assert own.address != cluster.address
    assert own.wait_listening(20), own.failed()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
until = time.monotonic() + 20
while len(os.listdir(sys.argv[1])) > 1:  # it left by os._exit
    assert time.monotonic() < until
    time.sleep(0.01)
assert cluster.failed() is None
"""
    )
    with script(text, base, str(base)) as process:
        finish(process)


def test_a_fork_while_another_thread_starts_it_does_not_hang_the_child(base: Path) -> None:
    text = """
    import os, sys, threading, warnings
    from burla import private_cluster
    warnings.simplefilter("ignore")  # from 3.12 on Python warns of just this fork
    spawn, inside, go = private_cluster._spawn, threading.Event(), threading.Event()
    def slow(*arguments):
        inside.set()
        go.wait()
        return spawn(*arguments)
    private_cluster._spawn = slow
    thread = threading.Thread(target=private_cluster.private_cluster)
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        private_cluster._spawn = spawn
        assert private_cluster.private_cluster().wait_listening(20)
        private_cluster._end_with_process()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()
    assert private_cluster.private_cluster().failed() is None
    """
    with script(text, base) as process:
        finish(process)


def test_a_daemon_that_dies_is_told_of_and_the_next_call_gets_another_cluster(base: Path) -> None:
    text = (
        START
        + """
import signal
print("last words", file=open(os.path.join(cluster._directory, "cluster.log"), "a"))
cluster._daemon.send_signal(signal.SIGKILL)
while cluster.failed() is None:
    time.sleep(0.01)
print(cluster.failed())
other = private_cluster()
assert other is not cluster and other.wait_listening(20)
assert other.failed() is None
"""
    )
    with script(text, base) as process:
        shown = finish(process)
    assert shown.startswith("the private cluster of this process ended by signal SIGKILL")
    assert shown.endswith("its last words:\nlast words\n")


CALL = """
import shutil
from burla import private_cluster as module
from burla import remote_parallel_map

def double(x):
    return 2 * x

def call():
    assert remote_parallel_map(double, [1, 2, 3]) == [2, 4, 6]
    return module._cluster
"""


@pytest.mark.parametrize("what", ["the socket", "everything"])
def test_one_whose_socket_file_is_gone_is_replaced_and_ends(what: str, base: Path) -> None:
    text = (
        CALL
        + """
first = call()
daemon = psutil.Process(first._daemon.pid)
if sys.argv[1] == "everything":
    shutil.rmtree(first._directory)
else:
    os.unlink(os.path.join(first._directory, "s"))
second = call()
assert second is not first
assert call() is second
assert not daemon.is_running()
assert os.listdir(sys.argv[2]) == [os.path.basename(second._directory)]
assert list(clients._clients) == [second.address]
"""
    )
    text = "import os, psutil, sys\nfrom burla.shell import clients\n" + text
    with script(text, base, what, str(base)) as process:
        finish(process)


def test_a_job_goes_on_where_it_is_while_others_go_to_the_next_cluster(base: Path) -> None:
    text = (
        "import os, sys, threading\n"
        + CALL
        + """
begun, go = (os.path.join(sys.argv[1], name) for name in ("begun", "go"))
def wait(x, begun=begun, go=go):
    import os, time
    open(begun, "w").close()
    while not os.path.exists(go):
        time.sleep(0.01)
    return x
results = []
thread = threading.Thread(target=lambda: results.append(remote_parallel_map(wait, [7])))
thread.start()
while not os.path.exists(begun):
    pass
first = module._cluster
os.unlink(os.path.join(first._directory, "s"))
found = []
threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
assert len(set(found)) == 1 and found[0] is not first
open(go, "w").close()
thread.join()
assert results == [[7]]
assert module._retired == [first]
call()
assert module._retired == []
assert first.failed() is not None
os.unlink(begun)
os.unlink(go)
"""
    )
    with script(text, base, str(base)) as process:
        finish(process)


def test_a_cluster_that_nobody_can_reach_any_more_ends_the_call_in_words(base: Path) -> None:
    text = (
        "import os, sys, threading\n"
        + CALL
        + """
first = call()
begun = os.path.join(sys.argv[1], "begun")
def wait(x, begun=begun):
    import time
    open(begun, "w").close()
    time.sleep(1000)
def cut():
    while not os.path.exists(begun):
        pass
    os.unlink(os.path.join(first._directory, "s"))
    os.unlink(begun)
    first._daemon.send_signal(19)  # it falls silent
threading.Thread(target=cut).start()
try:
    remote_parallel_map(wait, [1])
except Exception as error:
    print(type(error).__name__, error)
first._daemon.send_signal(18)
assert call() is not first
"""
    )
    with script(text, base, str(base)) as process:
        shown = finish(process)
    assert shown.startswith("ClusterError somebody removed ")
    assert "the socket of the private cluster of this process" in shown
    assert shown.endswith("The next call starts a new private cluster\n")


def test_leftovers_of_dead_owners_are_swept_and_nothing_else(base: Path) -> None:
    started = process_started(os.getpid())
    dead = [f"burla-{2**22 + 1}-7-{this_host()}-00000000"]
    dead.append(f"burla-{os.getpid()}-{started}9-{this_host()}-00000001")  # its id, used again
    kept = [f"burla-{os.getpid()}-{started}-{this_host()}-00000002"]
    kept.append(f"burla-{2**22 + 1}-7-00000000-00000003")  # of another machine
    kept += ["burla-1-7", "burla-notes", "other"]
    for name in dead + kept:
        (base / name).mkdir()
        (base / name / "cluster.log").write_text("x")
    with script(START + "print(*os.listdir(sys.argv[1]))", base, str(base)) as process:
        finish(process)
    left = sorted(entry.name for entry in base.iterdir())
    for name in left:
        shutil.rmtree(base / name)
    assert left == sorted(kept)


def test_memory_that_a_stranger_made_is_not_used(base: Path) -> None:
    directory = base / "burla-1-1-00000000-0123abcd"
    memory = Path(memory_of(str(directory)))
    memory.mkdir()
    try:
        memory.chmod(0o777)
        daemon = subprocess.Popen(["true"])
        daemon.wait()
        assert LocalCluster(str(directory), cast(Any, daemon)).memory is None
        memory.chmod(0o700)
        assert LocalCluster(str(directory), cast(Any, daemon)).memory == str(memory)
    finally:
        memory.rmdir()


def test_a_long_tmpdir_is_gone_around(base: Path) -> None:
    long = base / ("x" * 120)
    long.mkdir()
    env = os.environ | {"TMPDIR": str(long)}
    with script(START + "print(cluster.address)", base, env=env) as process:
        address = finish(process).strip()
    assert len(address) < 100
    assert not Path(address.removeprefix("ipc://")).parent.exists()
    long.rmdir()


def test_a_tmpdir_that_does_not_exist_is_gone_around(base: Path) -> None:
    env = os.environ | {"TMPDIR": str(base / "no")}
    with script(START + "print(cluster.address)", base, env=env) as process:
        assert not finish(process).startswith(f"ipc://{base}")


def test_with_nowhere_to_write_it_says_so(base: Path) -> None:
    text = """
    from burla import errors
    from burla import private_cluster
    private_cluster.bases = lambda: ["/proc/nowhere", "/no/such"]
    try:
        private_cluster.private_cluster()
    except errors.ClusterError as error:
        print(error)
    """
    with script(text, base) as process:
        shown = finish(process)
    assert "/proc/nowhere: " in shown
    assert "/no/such: No such file or directory" in shown
    assert "TMPDIR" in shown


def test_without_a_python_it_says_so_and_leaves_nothing(base: Path) -> None:
    text = """
    import sys
    from burla import errors
    from burla import private_cluster
    from burla.system import launch
    sys.executable = "/no/such/python"
    launch._running, sys.prefix = lambda: "/usr/bin/blender", "/nowhere"
    try:
        private_cluster.private_cluster()
    except errors.ClusterError as error:
        print(error)
    """
    with script(text, base) as process:
        shown = finish(process)
    assert "/no/such/python" in shown
    assert "BURLA_CLUSTER" in shown


def test_the_daemon_sees_the_environment_of_the_call(base: Path) -> None:
    text = """
    import os, sys
    from burla.private_cluster import private_cluster
    os.environ["SET_LATE"] = "yes"
    cluster = private_cluster()
    assert cluster.wait_listening(20), cluster.failed()
    pid = cluster._daemon.pid
    assert b"\\0SET_LATE=yes\\0" in b"\\0" + open(f"/proc/{pid}/environ", "rb").read()
    assert os.getsid(pid) == pid
    """
    with script(text, base) as process:
        finish(process)


ODD = {
    "low limits": 'ulimit -n 128; exec "$@"',
    "umask": 'umask 777; exec "$@"',
    "no home": 'unset HOME; exec "$@"',
    "closed stdin": 'exec "$@" 0<&-',
    "closed stderr": 'exec "$@" 2<&-',
    "closed stdin and stderr": 'exec "$@" 0<&- 2<&-',
    "read-only directory": 'cd /proc/self; exec "$@"',
    "deleted directory": 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"',
    "nohup": "trap '' HUP INT TERM CHLD; exec \"$@\"",
    "warnings are errors": 'PYTHONWARNINGS=error exec "$@"',
    "optimised": 'PYTHONOPTIMIZE=2 exec "$@"',
    "inspecting": 'PYTHONINSPECT=1 exec "$@" < /dev/null',
    "safe path": 'PYTHONSAFEPATH=1 exec "$@"',
}


@pytest.mark.parametrize("oddity", ODD)
def test_odd_surroundings_do_no_harm(oddity: str, base: Path) -> None:
    shell = ["bash", "-c", ODD[oddity], "bash"]
    with script(START + "print('fine')", base, shell=shell) as process:
        out, err = process.communicate(timeout=50)
    assert out == "fine\n", err
    assert process.returncode == 0


def test_an_empty_environment_does_no_harm(base: Path) -> None:
    with script(START + "print(cluster.address)", base, env={}) as process:
        address = finish(process).strip()
    assert not Path(address.removeprefix("ipc://")).parent.exists()


def test_blocked_signals_do_no_harm(base: Path) -> None:
    text = "import signal\nsignal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())"
    with script(text + START + "print('fine')", base) as process:
        assert finish(process) == "fine\n"


@pytest.mark.parametrize("options", [["-OO"], ["-I"], ["-E", "-s"], ["-B", "-X", "dev"]])
def test_options_of_python_do_no_harm(options: list[str], base: Path) -> None:
    path = base / "job.py"
    path.write_text(START + "print('fine')")
    line = [sys.executable, *options, str(path)]
    env = os.environ | {"TMPDIR": str(base)}
    done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=50)
    path.unlink()
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_modules_beside_the_script_are_not_taken_for_libraries(base: Path) -> None:
    beside = base / "user"
    beside.mkdir()
    for name in ("random", "worker", "utils", "tempfile", "uvloop", "platform", "config", "server"):
        (beside / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    (beside / "job.py").write_text(START + "print('fine')")
    env = os.environ | {"TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "job.py"]
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=beside, timeout=50)
    shutil.rmtree(beside)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_burla_is_found_where_only_the_script_finds_it(base: Path) -> None:
    """The script lies in a checkout that is installed nowhere, beside a trap."""
    checkout = base / "checkout"
    shutil.copytree(
        Path(burla.__file__).parent,
        checkout / "burla",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (checkout / "random.py").write_text("raise SystemExit('the wrong module')")
    (checkout / "job.py").write_text(
        START
        + "import burla\n"
        + "assert burla.__file__.startswith(os.path.dirname(os.path.abspath(__file__)))\n"
        + "line = open(f'/proc/{cluster._daemon.pid}/cmdline').read()\n"
        + "assert os.path.dirname(burla.__file__) in line\n"
        + "print('fine')"
    )
    env = os.environ | {"TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "job.py"]
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=checkout, timeout=50)
    shutil.rmtree(checkout)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_ctrl_c_in_the_callers_terminal_is_not_for_the_daemons(base: Path) -> None:
    text = (
        START
        + TELL
        + """
try:
    tell(cluster)  # in here: whoever hears it may send the signal at once
    time.sleep(60)
except KeyboardInterrupt:
    pass
assert cluster.failed() is None
assert private_cluster() is cluster
print("fine")
"""
    )
    with script(text, base, start_new_session=True) as process:
        _, processes = told(process)
        os.killpg(process.pid, signal.SIGINT)
        assert finish(process) == "fine\n"
    wait_gone(processes, LATE_S)
