"""What a job reaches of the machine around it, in each tier: sockets, terminals, keys, the home.

Real nodes, as root and as an ordinary user, in a machine on which that user has all of it. What a
tier does not keep is a row as well, and docs/SECURITY.md says so.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nobody
import pytest
from clusters import Cluster, cluster
from marked import marked
from tiers import BEFORE
from waiting import wait_until

from burla import remote_parallel_map
from burla.shell import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

SECRET = "of-the-user-alone-7c2b"
SECRETS = (
    *("home/.ssh/id", "state/burla/lab/keys/server.key"),
    *("open/node.key", "lib/burla/x.key"),
)
SHUT_IN = ("uid", "namespaces", "landlock")


@dataclass
class Machine:
    """A node, and what its user has on this machine."""

    tier: str
    cluster: Cluster
    base: Path
    sockets: dict[str, str]  # kind -> address; the abstract one begins with a zero
    terminal: str
    master: int  # the other end of the terminal

    def ask(self, function: Callable[[Any], Any], argument: Any = None) -> Any:
        (answer,) = remote_parallel_map(function, [argument], unpack=False, spinner=False)
        return answer


@contextmanager
def listening(address: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(address)
        one.listen(64)
        if not address.startswith("\0"):
            Path(address).chmod(0o777)
        yield
    if not address.startswith("\0"):
        Path(address).unlink()


@contextmanager
def machine_of(tier: str) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        Path(directory).chmod(0o755)  # an ordinary user's nodelet finds the socket there
        with _machine(tier, Path(directory)) as made:
            yield made


@contextmanager
def _machine(tier: str, directory: Path) -> Iterator[Machine]:
    user = nobody.UID if nobody.__file__ in BEFORE[tier] else 0
    base = Path(tempfile.mkdtemp(prefix="burla-test-", dir="/opt"))  # in no place that is covered
    base.chmod(0o755)
    word = os.urandom(6).hex()
    sockets = {
        "in /run": f"/run/burla-test-{word}.sock",
        "elsewhere": str(base / "open" / "sock"),
        "in the home": str(base / "home" / ".agent"),
        "abstract": f"\0burla-test-{word}",
    }
    (base / "open").mkdir(mode=0o755)
    (base / "lib").mkdir(mode=0o755)  # on the path that Python searches, and settings are in it
    for name in SECRETS:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(SECRET)
        (base / name).chmod(0o600)
    (base / "home").chmod(0o700)
    master, slave = os.openpty()
    os.chown(os.ttyname(slave), user, user)
    for path in [base, *base.rglob("*")]:
        os.chown(path, user, user)
    words = {
        "HOME": base / "home",
        nobody.HOME_VARIABLE: base / "home",
        "XDG_STATE_HOME": base / "state",
        "BURLA_CONFIG_DIR": base / "lib/burla",
        "PYTHONPATH": f"{base / 'home'}:{base / 'lib'}",
    }
    prefix = ("env", *(f"{name}={word}" for name, word in words.items()), *BEFORE[tier])
    try:
        with marked(), cluster(directory, isolation="best") as made:
            Path(made.address.removeprefix("ipc://")).chmod(0o777)
            with (
                listening(sockets["in /run"]),
                listening(sockets["elsewhere"]),
                listening(sockets["in the home"]),
                listening(sockets["abstract"]),
            ):
                options = ("--isolation", "process") if tier == "process" else ()
                made.add_node(2, "--key-file", str(base / "open/node.key"), *options, prefix=prefix)
                machine = Machine(tier, made, base, sockets, os.ttyname(slave), master)
                machine.ask(lambda _: None)
                said = (made.directory / "node0.log").read_text()
                assert f"isolation: {tier}" in said, said
                yield machine
                client = clients._clients.pop(made.address, None)
                if client is not None:
                    client.close()
    finally:
        shutil.rmtree(base)
        os.close(master)
        os.close(slave)


@pytest.fixture(scope="module", params=SHUT_IN)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine_of(request.param) as made:
        yield made


# --- what is kept ---


def connect(address: str) -> str:
    """Return what happens to who connects."""
    import socket

    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(address)
        return "connected"
    except OSError as error:
        return type(error).__name__


@pytest.mark.parametrize("kind", ["in /run", "elsewhere", "in the home", "abstract"])
def test_sockets_of_others(machine: Machine, kind: str) -> None:
    """By one of them a job would run code outside: docker, systemd, agents, munge."""
    answer = machine.ask(connect, machine.sockets[kind])
    # Landlock has no right for it; and what everybody may use a stranger may use, too
    open_to = {"landlock": ("in /run", "elsewhere", "in the home"), "uid": ("elsewhere",)}
    if kind in open_to.get(machine.tier, ()):
        assert answer == "connected"
    else:
        refused = ("PermissionError", "FileNotFoundError", "ConnectionRefusedError")
        assert answer in refused


def test_terminals_of_the_user(machine: Machine) -> None:
    def use(path: str) -> list[str]:
        import os

        said = []
        for flags in (os.O_RDONLY, os.O_WRONLY):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
                said.append("opened")
            except OSError as error:
                said.append(type(error).__name__)
        return said

    assert set(machine.ask(use, machine.terminal)) <= {"PermissionError", "FileNotFoundError"}


@pytest.mark.parametrize("name", SECRETS)
def test_keys(machine: Machine, name: str) -> None:
    """Of the home, which is on the path of modules; of clusters; of this node, in the open."""

    def read(path: str) -> str:
        try:
            with open(path) as file:
                return file.read()
        except OSError:
            return ""

    assert machine.ask(read, str(machine.base / name)) == ""
    assert (machine.base / name).read_text() == SECRET


def change(path: str) -> dict[str, str]:
    """Return what happens to who changes a file or process of the user that it cannot open."""
    import ctypes
    import os
    import resource
    import subprocess
    from collections.abc import Callable
    from typing import Any

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *words: Any) -> None:
        if getattr(libc, name)(*words) == -1:
            raise OSError(ctypes.get_errno(), name)

    word, parent = os.fsencode(path), os.getppid()
    acts: dict[str, Callable[[], Any]] = {
        "os.chmod": lambda: os.chmod(path, 0o777),
        "os.utime": lambda: os.utime(path, (1, 1)),
        "os.chown": lambda: os.chown(path, os.getuid(), os.getgid()),
        "chmod": lambda: call("chmod", word, 0o777),
        "fchmodat": lambda: call("fchmodat", -100, word, 0o777, 0),
        "chown": lambda: call("chown", word, os.getuid(), os.getgid()),
        "utimes": lambda: call("utimes", word, None),
        "setxattr": lambda: os.setxattr(path, "user.a", b"b"),
        "command": lambda: subprocess.run(["chmod", "777", path], check=True, capture_output=True),
        "prlimit": lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (600, 600)),
    }
    said = {}
    for name, act in acts.items():
        try:
            act()
            said[name] = "done"
        except (OSError, subprocess.CalledProcessError) as error:
            said[name] = type(error).__name__
    return said


@pytest.mark.parametrize("name", ["home", "home/.ssh/id", "open/node.key"])
def test_files_of_the_user_are_not_changed(machine: Machine, name: str) -> None:
    path = machine.base / name
    before = path.stat()
    said = machine.ask(change, str(path))
    if machine.tier == "landlock":
        assert "done" not in said.values(), said
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime) == (
        *(before.st_mode, before.st_uid),
        before.st_mtime,
    )


def test_system_v_memory_is_not_left_for_the_next_job(machine: Machine) -> None:
    key = 0x62757201 + os.getpid()

    def leave(key: int) -> int:
        import ctypes

        return int(ctypes.CDLL(None).shmget(key, 4096, 0o1666))

    def find(key: int) -> int:
        import ctypes

        return int(ctypes.CDLL(None).shmget(key, 0, 0))

    assert machine.ask(leave, key) >= (-1 if machine.tier == "landlock" else 0)
    assert machine.ask(find, key) == -1
    assert find(key) == -1


@pytest.mark.parametrize("tier", list(BEFORE))
@pytest.mark.parametrize("how", ["ended", "killed"])
def test_no_directory_is_left(tier: str, how: str) -> None:
    with machine_of(tier) as machine:
        nodelet = machine.cluster.nodelets[0]
        pattern = f"burla-node-*-{nodelet.pid}-*"
        wait_until(lambda: any(Path("/tmp").glob(pattern)), "it has its directory")
        (made,) = Path("/tmp").glob(pattern)
        if how == "killed":
            nodelet.kill()
            nodelet.wait()
    if how == "killed":  # its zygote may end after it, and be shut in: the next nodelet sweeps
        wait_until(lambda: not any(made.glob("*")), "it is empty")
        with machine_of(tier):
            pass
    assert not made.exists()


# --- what works all the same ---


def use_pool(_: None) -> Any:
    import math
    import multiprocessing

    with multiprocessing.Pool(2) as pool:
        return pool.map(math.factorial, [3, 4])


def use_queue(_: None) -> Any:
    import multiprocessing

    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=lambda: queue.put("said"))
    child.start()
    said = queue.get(timeout=20)
    child.join()
    return said


def use_shared_memory(_: None) -> Any:
    from multiprocessing import shared_memory

    made: Any = shared_memory.SharedMemory(create=True, size=4096)
    try:
        made.buf[0] = 7
        again: Any = shared_memory.SharedMemory(made.name)
        first = again.buf[0]
        again.close()
        return first
    finally:
        made.close()
        made.unlink()


def use_manager(_: None) -> Any:
    import multiprocessing

    with multiprocessing.Manager() as manager:
        kept = manager.dict(a=1)
        kept["b"] = 2
        return dict(kept)


def use_forkserver(_: None) -> Any:
    import math
    import multiprocessing

    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.map(math.factorial, [3])


def use_files(_: None) -> Any:
    import os
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        one, two = os.path.join(folder, "a"), os.path.join(folder, "b")
        with open(one, "w") as file:
            file.write("#!/bin/sh\necho well\n")
        os.chmod(one, 0o700)
        os.utime(one, (1, 1))
        shutil.copy2(one, two)
        return os.popen(two).read(), os.stat(two).st_mode & 0o777, int(os.stat(two).st_mtime)


def use_names(_: None) -> Any:
    import pwd
    import socket

    with open("/etc/resolv.conf") as file:
        file.read()
    return pwd.getpwuid(0).pw_name, socket.gethostbyname("localhost")


WORKS = (
    (use_pool, [6, 24]),
    (use_queue, "said"),
    (use_shared_memory, 7),
    (use_manager, {"a": 1, "b": 2}),
    (use_forkserver, [6]),
    (use_files, ("well\n", 0o700, 1)),
    (use_names, ("root", "127.0.0.1")),
)


@pytest.mark.parametrize(("use", "result"), WORKS, ids=[use.__name__ for use, _ in WORKS])
def test_what_programs_need_is_there(
    machine: Machine, use: Callable[[None], Any], result: Any
) -> None:
    assert machine.ask(use) == result


def test_what_programs_need_is_there_without_isolation() -> None:
    with machine_of("process") as machine:
        for use, result in WORKS:
            assert machine.ask(use) == result, use.__name__


# Landlock has no sandbox: a job's terminals would lie beside those of the user.
@pytest.mark.parametrize("machine", ["uid", "namespaces"], indirect=True)
def test_a_sandbox_has_terminals_of_its_own(machine: Machine) -> None:
    def talk(_: None) -> bytes:
        import os
        import pty

        pid, master = pty.fork()
        if pid == 0:
            os.execvp("sh", ["sh", "-c", "test -t 0 && echo a terminal > /dev/tty"])
        said = b""
        try:
            while piece := os.read(master, 100):
                said += piece
        except OSError:  # the other end is closed
            pass
        os.waitpid(pid, 0)
        return said

    assert machine.ask(talk) == b"a terminal\r\n"
