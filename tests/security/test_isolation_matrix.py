"""What a job can not do to the node, to the cluster and to the job after it: a row a test.

Real nodes, as root, in the best tier there is; the rows about keys in every tier. A lease is served
by one sandbox, so two calls of `remote_parallel_map` of different functions are two leases.
"""

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nobody
import psutil
import pytest
from clusters import Cluster, cluster
from marked import marked
from tiers import BEFORE
from waiting import wait_gone, wait_until

import burla
from burla import remote_parallel_map
from burla.shell import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

SECRET = "the-nodelets-own-key-4d1f0b"


@contextmanager
def node(
    directory: Path, *options: str, before: tuple[str, ...] = (), bind: str = ""
) -> Iterator[Cluster]:
    """Run a node of two CPUs that shuts jobs in as well as it can; nothing of it may be left.

    Args:
        directory: for logs and the socket.
        options: of burla-nodelet.
        before: what the command line of the nodelet begins with.
        bind: address of the scheduler.
    """
    with marked(), cluster(directory, bind=bind, isolation="best") as made:
        try:
            if before:  # it may be another user's
                Path(made.address.removeprefix("ipc://")).chmod(0o777)
            made.add_node(2, *options, prefix=before)
            yield made
        finally:
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with node(tmp_path_factory.mktemp("c"), "--ram", "4") as made:
        yield made


def ask(function: Callable[[Any], Any], argument: Any = None) -> Any:
    """Return what a call on the node returns, in a lease of its own."""
    (answer,) = remote_parallel_map(function, [argument], unpack=False, spinner=False)
    return answer


def tier_of(made: Cluster) -> str:
    (line,) = [line for line in log(made).splitlines() if "isolation: " in line]
    return line.partition("isolation: ")[2].split()[0]


def log(made: Cluster) -> str:
    return (made.directory / "node0.log").read_text()


# --- keys ---


@pytest.fixture(scope="module", params=list(BEFORE))
def keyed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Path]]:
    """Run a node of each tier whose nodelet has a key in a file of its own, and in its memory."""
    user = nobody.UID if nobody.__file__ in BEFORE[request.param] else 0
    options = ("--isolation", "process") if request.param == "process" else ()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        keys = Path(directory, "burla")
        keys.mkdir(0o700)
        (keys / "node.key").write_text(SECRET)
        (keys / "node.key").chmod(0o600)
        for path in (directory, keys, keys / "node.key"):
            os.chown(path, user, user)
        os.environ["BURLA_CONFIG_DIR"] = str(keys)
        try:
            with node(Path(directory), *options, before=BEFORE[request.param]) as made:
                ask(lambda _: None)  # it is there
                yield made, keys / "node.key"
        finally:
            del os.environ["BURLA_CONFIG_DIR"]


def test_the_tiers_are_what_they_are_taken_for(
    keyed: tuple[Cluster, Path], request: pytest.FixtureRequest
) -> None:
    assert tier_of(keyed[0]) == request.node.callspec.params["keyed"]


def test_worker_reads_key_by_file(keyed: tuple[Cluster, Path]) -> None:
    def read(path: str) -> str:
        try:
            with open(path) as file:
                return file.read()
        except OSError as error:
            return type(error).__name__

    made, path = keyed
    if tier_of(made) == "process":  # which is why a banner says so
        assert "all rights of this user" in log(made)
    else:
        assert ask(read, str(path)) in ("PermissionError", "FileNotFoundError")


def test_worker_reads_key_by_proc(keyed: tuple[Cluster, Path]) -> None:
    def read(pid: int) -> dict[str, str]:
        import os

        said = {}
        for name in ("environ", "mem", "maps", "auxv"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    said[name] = repr(file.read(1 if name == "mem" else 64))
            except OSError as error:
                said[name] = type(error).__name__
        for number in range(64):
            try:
                said[f"fd {number}"] = os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError as error:
                said[f"fd {number}"] = type(error).__name__
        return said

    made, _ = keyed
    said = ask(read, made.nodelets[0].pid)
    assert set(said.values()) <= {"PermissionError", "FileNotFoundError"}, said


def test_worker_reads_key_by_ptrace(keyed: tuple[Cluster, Path]) -> None:
    def trace(pid: int) -> int:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        seize = 0x4206
        return ctypes.get_errno() if libc.ptrace(seize, pid, None, None) == -1 else 0

    made, _ = keyed
    assert ask(trace, made.nodelets[0].pid) in (1, 3)  # EPERM, ESRCH


def test_worker_reads_key_by_descriptor(keyed: tuple[Cluster, Path]) -> None:
    def descriptors(_: None) -> list[str]:
        import os
        from contextlib import suppress

        found = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # that of the listing
                found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        return sorted(found)

    # its input, where faulthandler tells of a crash, its output (twice), its orders
    assert ask(descriptors) == ["/dev/null", "/memfd", "pipe", "pipe", "socket"]


# --- the cluster ---


def test_worker_speaks_to_scheduler_or_nodelet(shared: Cluster) -> None:
    def connect(path: str) -> str:
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(path)
            return "connected"
        except OSError as error:
            return type(error).__name__

    path = shared.address.removeprefix("ipc://")
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert ask(connect, path) in ("PermissionError", "FileNotFoundError")
    # nodelets listen nowhere
    listening = psutil.Process(shared.nodelets[0].pid).net_connections("all")
    assert [one for one in listening if one.status == psutil.CONN_LISTEN] == []
    assert [one for one in listening if one.family == socket.AF_UNIX and one.laddr] == []


def test_worker_signals_or_sees_the_nodelet(shared: Cluster) -> None:
    def kill(pids: list[int]) -> list[str]:
        import os
        import signal

        said = []
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                said.append("killed")
            except OSError as error:
                said.append(type(error).__name__)
        return said

    pids = [one.pid for one in psutil.Process(shared.nodelets[0].pid).children()]
    assert set(ask(kill, [shared.nodelets[0].pid, 1, *pids])) <= {
        "ProcessLookupError",
        "PermissionError",
    }
    assert ask(lambda x: x + 1, 1) == 2


# --- what is left ---


def leave(kind: str) -> str:
    """Leave something behind, as a job may; return what happened."""
    import os
    import subprocess
    import sys

    done = "left"
    home = os.environ["HOME"]
    script = {
        "sysv shared memory": "libc.shmget(77, 4096, 0o1666)",
        "sysv semaphore": "libc.semget(77, 1, 0o1666)",
        "sysv message queue": "libc.msgget(77, 0o1666)",
        "posix message queue": "libc.mq_open(b'/residue', 0o102, 0o666, None)",
    }
    files = {
        "file in /tmp": "/tmp/residue",
        "file in /var/tmp": "/var/tmp/residue",
        "posix shared memory": "/dev/shm/residue",
        "file in the job's folder": f"{os.environ['BURLA_JOB_DIR']}/residue",
        "ssh key": f"{home}/.ssh/authorized_keys",
        "systemd user unit": f"{home}/.config/systemd/user/residue.service",
        "environment file": f"{home}/.bashrc",
        "core dump": f"{home}/core",
    }
    if kind in files:
        os.makedirs(os.path.dirname(files[kind]), exist_ok=True)
        with open(files[kind], "w") as file:
            file.write("residue")
    elif kind in script:
        import ctypes

        libc = ctypes.CDLL(None)
        done = "left" if eval(script[kind], {"libc": libc}) >= 0 else "not left"
    elif kind == "cron job":
        for path in ("/var/spool/cron/crontabs/root", "/etc/cron.d/residue", "/etc/crontab"):
            try:
                with open(path, "a") as file:
                    file.write("* * * * * root true\n")
            except OSError:
                done = "not left"
        subprocess.run("echo '* * * * * true' | crontab -", shell=True, check=False)
    elif kind == "mount":
        line = "mkdir /tmp/m; mount -t tmpfs residue /tmp/m || unshare -Urm mount -t tmpfs r /tmp/m"
        done = "left" if subprocess.run(line, shell=True, check=False).returncode == 0 else "not"
    elif kind == "listening process":
        program = (
            "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0residue');"
            "s.listen(); print(flush=True); time.sleep(600)"
        )
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
    return done


def find(kind: str) -> list[str]:
    """Return what an earlier job has left of this kind, as the next one sees it."""
    import ctypes
    import os

    libc = ctypes.CDLL(None)
    found = []
    for top in ("/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"]):
        for parent, directories, names in os.walk(top):
            found += [os.path.join(parent, name) for name in [*directories, *names]]
    mine = {"/tmp/home", "/tmp/job"}
    for name, id_ in (
        ("shm", libc.shmget(77, 0, 0)),
        ("sem", libc.semget(77, 0, 0)),
        ("msg", libc.msgget(77, 0)),
        ("mq", libc.mq_open(b"/residue", 0)),
    ):
        if id_ >= 0:
            found.append(name)
    with open("/proc/net/unix") as file:
        found += [line for line in file if "@residue" in line]
    with open("/proc/self/mountinfo") as file:
        found += [line for line in file if " residue " in line]
    for path in ("/etc/cron.d/residue", "/var/spool/cron/crontabs/burla"):
        if os.path.exists(path):
            found.append(path)
    return sorted(path for path in found if path not in mine and not path.startswith(SHOWN))


# Where this Python and this checkout lie, if that is where everybody may write: shown read-only.
SHOWN = tuple({f"/{'/'.join(path.split('/')[1:3])}" for path in (*sys.path, sys.prefix) if path})

RESIDUE = (
    "file in /tmp",
    "file in /var/tmp",
    "file in the job's folder",
    "posix shared memory",
    "sysv shared memory",
    "sysv semaphore",
    "sysv message queue",
    "posix message queue",
    "cron job",
    "ssh key",
    "systemd user unit",
    "mount",
    "listening process",
    "environment file",
    "core dump",
)


@pytest.mark.parametrize("kind", RESIDUE)
def test_residue(shared: Cluster, kind: str) -> None:
    refused = kind in ("cron job",)
    assert ask(leave, kind) == ("not left" if refused else "left")
    assert ask(find, kind) == []
    with open("/proc/net/unix") as file:
        assert "@residue" not in file.read()
    for top in ("/tmp", "/var/tmp", "/dev/shm", "/root"):
        assert not list(Path(top).glob("*residue*")), top
    assert not Path("/etc/cron.d/residue").exists()
    ipc = [Path(f"/proc/sysvipc/{name}").read_text() for name in ("shm", "sem", "msg")]
    assert not [line for text in ipc for line in text.splitlines() if line.split()[0] == "77"]


@pytest.mark.parametrize("tier", ["uid", "namespaces"])
def test_residue_where_the_next_lease_of_the_session_follows(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both import is imported once for all, in a process that never runs any of it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        Path(directory).chmod(0o755)
        place = Path(directory, "site-packages")
        place.mkdir()
        text = "import os, time\ntime.sleep(0.11)\nPID = os.getpid()\n"
        (place / "imported_slowly.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
        monkeypatch.syspath_prepend(place)

        def shown(call: Callable[[Any], Any], argument: Any = None) -> tuple[Any, int, bool]:
            def importing(argument: Any) -> tuple[Any, int, bool]:
                import imported_slowly  # type: ignore[import-not-found]  # it is made above

                init = os.stat("/proc/1").st_ctime_ns
                return call(argument), init, os.getpid() != imported_slowly.PID

            (answer,) = remote_parallel_map(importing, [argument], unpack=False, spinner=False)
            return answer

        def change(_: None) -> list[str]:
            changed = [*filter(None, [os.environ.get("RESIDUE")]), os.getcwd()]
            os.environ["RESIDUE"] = "residue"
            os.chdir("/")
            return changed

        kept = Path(directory, "kept")  # where others have what no job can change
        kept.mkdir()
        (kept / "file").touch()

        def link(_: None) -> None:
            home = os.environ["HOME"]
            shutil.rmtree(home)
            os.symlink(kept, home)
            os.symlink(kept, "/tmp/link")

        def leave_all(_: None) -> list[str]:
            return [kind for kind in RESIDUE if leave(kind) == "left"]

        Path(directory, "c").mkdir()
        with node(Path(directory, "c"), before=BEFORE[tier]) as made:
            begun, init, _ = shown(change)
            assert tier_of(made) == tier

            def all_were_imported_ahead() -> bool:
                # one after the other: the same processes go on with the same function
                left, find_left, changed = shown(leave_all), shown(find), shown(change)
                assert left[0] == [kind for kind in RESIDUE if kind != "cron job"]
                assert [path for path in find_left[0] if not path.startswith(directory)] == []
                assert changed[0] == begun
                assert left[1] == find_left[1] == changed[1] == init  # it is the same place
                return left[2] and find_left[2] and changed[2]

            wait_until(all_were_imported_ahead, "all are forked from what was imported ahead")
            shown(link)
            found, elsewhere, _ = shown(find)
            assert [path for path in found if not path.startswith(directory)] == []
            assert elsewhere != init  # it was not worth trusting
            assert (kept / "file").exists()


def test_daemon_left_by_double_fork(shared: Cluster) -> None:
    def start(word: str) -> None:
        import os
        import subprocess

        line = f"setsid sh -c 'setsid sh -c \"trap : TERM INT HUP; exec sleep 61{word}\" & ' & "
        subprocess.run(line, shell=True, check=True, close_fds=True, env=dict(os.environ))
        while f"61{word}" not in subprocess.run(
            "cat /proc/[0-9]*/cmdline", shell=True, capture_output=True, check=False
        ).stdout.decode().replace("\0", " "):
            pass

    word = str(os.getpid())
    ask(start, word)
    ask(id)  # served only when the lease before has ended
    named = [one for one in psutil.process_iter(["cmdline"]) if f"61{word}" in str(one.info)]
    assert [one for one in named if one.status() != psutil.STATUS_ZOMBIE] == []


# --- too much ---


def test_fork_bomb(shared: Cluster) -> None:
    def bomb(_: None) -> str:
        import os
        import time

        depth = 0
        while True:
            try:
                if os.fork() == 0:
                    depth += 1
            except OSError:
                if depth == 0:
                    return "full"
                time.sleep(600)

    with suppress(burla.OutOfMemory):  # whichever limit it meets first
        assert ask(bomb) == "full"
    assert ask(lambda x: x + 1, 1) == 2
    assert shared.nodelets[0].poll() is None


def test_disk_full(shared: Cluster) -> None:
    def fill(_: None) -> list[str]:
        said = []
        for path in ("/tmp/a", "/var/tmp/a", "/dev/shm/a"):
            try:
                with open(path, "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(1 << 20))
            except OSError as error:
                said.append(error.strerror or "")
        return said

    assert ask(fill) == ["No space left on device"] * 3

    def write(_: None) -> int:
        with open("/tmp/b", "wb") as file:
            return file.write(bytes(100 << 20))

    assert ask(write) == 100 << 20


def test_memory_full(shared: Cluster) -> None:
    def fill(_: None) -> None:
        kept = []
        while True:
            kept.append(b"x" * (16 << 20))

    with pytest.raises((burla.WorkerDied, burla.OutOfMemory)):
        ask(fill)
    assert ask(lambda x: x + 1, 1) == 2
    assert shared.nodelets[0].poll() is None


# --- how people see it ---


def test_nodes_are_listed_with_their_tier(shared: Cluster) -> None:
    import json

    ask(lambda _: None)
    line = [sys.executable, "-m", "burla.cli", "nodes", "list"]

    def listed() -> Any:
        done = subprocess.run([*line, "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    wait_until(lambda: listed()[0]["state"] == "free", "the lease is over")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (node,) = listed()
    assert node.pop("idle_s") > 0
    assert node == {
        "name": "node0",
        "isolation": "uid",
        "cpus": 2,
        "ram": 4 << 30,
        "python": python,
        "state": "free",
        "job": "",
        "lost_s": 0.0,
        "why": "",
        "gpus": [],
    }
    table = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert table[0].split() == ["NAME", "ISOLATION", "CPUS", "RAM", "PYTHON", "STATE", "JOB"]
    assert table[1].split() == ["node0", "uid", "2", "4", "GB", python, "free"]


def test_nothing_is_left_of_the_node_itself(tmp_path: Path) -> None:
    before = set(Path("/run/burla").glob("*")) if Path("/run/burla").exists() else set()
    with node(tmp_path) as made:
        uid, group = ask(lambda _: (os.getuid(), Path("/proc/self/cgroup").read_text()))
        assert uid >= 2_000_000_000
        assert f"burla-{uid}" in group
        assert tier_of(made) == "uid"
    left = set(Path("/run/burla").glob("*")) - before
    assert f"uid-{uid}" not in {path.name for path in left}
    groups = Path("/sys/fs/cgroup")  # the kernel may need a moment for one that had memory
    wait_until(lambda: not list(groups.rglob(f"burla-{uid}")), "its control groups are gone")


@pytest.mark.parametrize("whom", ["keeper", "nodelet", "init of a sandbox"])
def test_nothing_outlives_a_part_that_is_killed(tmp_path: Path, whom: str) -> None:
    with node(tmp_path) as made:
        wait_until(lambda: "connected to" in log(made), "the nodelet serves")
        nodelet = made.nodelets[0]
        (keeper,) = psutil.Process(nodelet.pid).children()
        wait_until(lambda: len(inits(keeper)) == 2, "a sandbox, and one to spare")
        below = keeper.children(recursive=True)
        (init, _) = inits(keeper)
        pids = {"keeper": keeper.pid, "nodelet": nodelet.pid, "init of a sandbox": init.pid}
        os.kill(pids[whom], signal.SIGKILL)
        wait_gone([keeper, *below])
        assert nodelet.wait(20) == (-9 if whom == "nodelet" else 1)
    if whom == "keeper":  # nobody was left to clear up: the next one does
        with node(tmp_path):
            wait_until(lambda: not left(), "its groups and ids are swept")


def inits(keeper: psutil.Process) -> list[psutil.Process]:
    """Return the first processes of sandboxes: leaders of sessions, as what forks them is not."""
    found = []
    for child in keeper.children():
        with suppress(ProcessLookupError):
            if os.getsid(child.pid) == child.pid:
                found.append(child)
    return found


def left() -> list[str]:
    """Return locks of user ids that nobody holds, and control groups without such a lock."""
    locks = list(Path("/run/burla").glob("uid-*"))
    names = {f"burla-{path.name.removeprefix('uid-')}" for path in locks}
    groups = Path("/sys/fs/cgroup").glob("*/burla-2" + "[0-9]" * 9)
    return [str(path) for path in locks if not held(path)] + [
        str(path) for path in groups if path.name not in names
    ]


def held(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except OSError:
        return True
