"""The embedded default: a private scheduler and nodelet that live and die with this process.

Both are one daemon (burla/private/cli.py). Nothing is left when the process ends: at a normal end
it ends its daemon itself; when it is killed that notices (burla/system/daemon.py), ends, and
removes the directory. What even that misses, because it was killed as well, the next private
cluster of anybody with the same base directory sweeps.

Imports little: a script waits for the daemon, which starts while the rest is imported.
"""

import atexit
import contextlib
import functools
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from burla.system.hash_seed import VARIABLE as SEED_VARIABLE, own_seed, random_seed
from burla.system.interrupts import HeldInterrupts
from burla.system.launch import LaunchError, command
from burla.system.owner import MEMORY, Owner, memory_of, remove_directory, this_host
from burla.system.paths import runtime_directories
from burla.system.procfs import process_started
from burla.transport.descriptors import lack

from .ends import how_it_died
from .errors import ClusterError

if TYPE_CHECKING:
    from burla.values.free_files import FreeFiles
    from burla.values.free_results import HeldResults

SOCKET = "s"  # short, since an ipc path is
# What an ipc path may have in bytes (107), less a directory of ours, the socket and a suffix to it.
BASE_BYTES_MAX = 107 - 48 - len(SOCKET) - 8
CUT_OFF_S = 3.0  # a scheduler that speaks each second, and whose socket file is gone, is lost
END_S = 10.0  # the daemon cuts itself off after 8 s; then it is killed
KILL_S = 2.0
NEEDS_LINUX = (
    "no cluster is configured, and a private one on this machine needs Linux (on Windows: WSL);"
    " run `burla login ADDRESS`, or set BURLA_CLUSTER to the address, which whoever runs the"
    " cluster has (`burla up` makes one)"
)
LOG = "cluster.log"
TAIL_BYTES = 4096  # of the daemon's log, shown when it ends unexpectedly
LISTEN_POLL_S = 0.002
IMPATIENCE_MS = 50  # between two looks whether the user is impatient
# Say whether a child has ended, and leave it to be waited for; Windows and macOS have no cluster.
_LOOK = getattr(os, "WEXITED", 0) | getattr(os, "WNOHANG", 0) | getattr(os, "WNOWAIT", 0)

DIRECTORY = re.compile(r"burla-(\d+)-(\d*)-([0-9a-f]{8})-[0-9a-f]{8}")


class LocalCluster:
    """A scheduler and a nodelet of this process. Thread-safe."""

    def __init__(self, directory: str, daemon: subprocess.Popen[bytes]) -> None:
        """Take charge of a running daemon and of the directory that holds its socket and log."""
        self.address = address_in(directory)
        self._directory = directory
        self._path = os.path.join(directory, SOCKET)
        self._daemon = daemon
        self._socket: tuple[int, int] | None = None  # its file; None: not seen yet
        self._results: HeldResults | None = None  # that lie in our memory; None: in none yet

    def failed(self, silent_s: float = 0.0) -> str | None:
        """Return what happened if it is gone though nobody ended it, else None.

        Either the daemon has ended, or it is silent and cannot be reached any more.
        """
        if not self._runs() and (status := self._daemon.poll()) is not None:
            tail = _tail(os.path.join(self._directory, LOG))
            return f"the private cluster of this process ended by {how_it_died(status)}{tail}"
        if silent_s >= CUT_OFF_S and self.is_cut_off():
            return (
                f"somebody removed {self._path}, the socket of the private cluster of this process"
            )
        return None

    def _runs(self) -> bool:
        """Return whether the daemon is known to run, in a third of the time that `poll` takes."""
        if self._daemon.returncode is not None:
            return False
        try:
            return os.waitid(os.P_PID, self._daemon.pid, _LOOK) is None
        except OSError:  # another thread has just seen its end
            return False

    def is_cut_off(self) -> bool:
        """Return whether its socket file was removed: who is not connected cannot be any more."""
        if self._socket is None:
            return False
        try:
            status = os.stat(self._path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._socket

    def wait_listening(self, timeout_s: float) -> bool:
        """Return whether the scheduler listens, as soon as it does or the daemon has failed.

        A connect that comes too early is tried again by libzmq only after 100 to 200 ms.
        """
        if self._socket is not None:
            return True
        until = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError):
                status = os.stat(self._path)
                self._socket = (status.st_dev, status.st_ino)
                return True
            if time.monotonic() > until or self.failed() is not None:
                return False
            time.sleep(LISTEN_POLL_S)

    @functools.cached_property
    def memory(self) -> str | None:
        """Return a directory in memory that our workers can read; None: there is none."""
        directory = memory_of(self._directory)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:  # made by another thread of ours, or by a stranger
            status = os.lstat(directory)
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if not is_ours or status.st_mode & 0o077:
                return None
        except OSError:
            return None
        from burla.values.free_results import HeldResults
        from burla.values.shared_memory import keepers

        self._results = keepers[directory] = HeldResults(directory)
        return directory

    @functools.cached_property
    def free_files(self) -> "FreeFiles | None":
        """Return what jobs of this cluster leave each other of that directory; None: nothing."""
        from burla.values.free_files import FreeFiles

        return None if self.memory is None else FreeFiles(self.memory)

    def end(self) -> None:
        """End the daemon, within `END_S` + `KILL_S`, and remove what it has on disk."""
        with _Impatience() as impatience:
            was_broken = self._daemon.poll() is not None
            self._daemon.terminate()
            _wait_ended(self._daemon, END_S, impatience)
            self._daemon.kill()
            _wait_ended(self._daemon, KILL_S)
            if was_broken:  # a function that killed what it runs below has left nobody to end it
                _kill_forks(self._directory)
            remove_directory(self._directory)
            if self._results is not None:
                from burla.values.shared_memory import keepers

                self._results.end()
                keepers.pop(memory_of(self._directory), None)

    def disown(self) -> None:
        """Forget the daemon: this is a forked child, and it is its parent's."""
        self._daemon.returncode = 0  # or subprocess warns of a child that still runs


class _Impatience:
    """Takes Ctrl-C while the cluster ends: it makes that quicker, but does not break it off.

    A daemon that has ended while its owner lived has left the directory to it.
    """

    def __init__(self) -> None:
        self.shown = False
        self._before: Any = None

    def __enter__(self) -> "_Impatience":
        if signal.getsignal(signal.SIGINT) is None:
            return self  # C code has it, and it could not be given back
        with contextlib.suppress(ValueError):  # not the main thread, which alone is interrupted
            self._before = signal.signal(signal.SIGINT, self._show)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _show(self, number: int, frame: object) -> None:
        self.shown = True


_lock = threading.Lock()  # held while a cluster is started, so that one is started
_cluster: LocalCluster | None = None
_retired: list[LocalCluster] = []  # they take no new jobs, and are ended after the last one


def private_cluster() -> LocalCluster:
    """Return the cluster of this process, started by the first call; another one if it failed.

    One whose socket file is gone is replaced, too, before anything needs to connect; jobs that run
    there go on as long as their connection does. Does not wait until the cluster listens.

    Raises:
        ClusterError: it cannot be started.
    """
    global _cluster
    if sys.platform != "linux":
        raise ClusterError(NEEDS_LINUX)
    with _lock:
        if _cluster is not None and (_cluster.is_cut_off() or _cluster.failed() is not None):
            _retired.append(_cluster)
            _cluster = None
        if _retired:
            _end_retired()
        if _cluster is None:
            with HeldInterrupts():  # or nobody would know of what has been made
                _cluster = _start()
        return _cluster


def is_current(cluster: LocalCluster) -> bool:
    """Return whether new jobs still go to this cluster."""
    return cluster is _cluster


def _end_retired() -> None:
    """End the clusters that have been replaced and have no job left."""
    from burla.shell.clients import close_idle  # a cluster is started without waiting for zmq

    for cluster in list(_retired):
        if close_idle(cluster.address):
            cluster.end()
            _retired.remove(cluster)


def _start() -> LocalCluster:
    if why := lack():
        raise ClusterError(f"cannot start a private cluster on this machine: {why}")
    directory = _make_directory()
    owner = Owner(os.getpid(), process_started(os.getpid()), directory)
    try:
        daemon = _spawn(owner, directory)
    except (LaunchError, OSError) as error:
        remove_directory(directory)
        raise ClusterError(
            f"cannot start a private cluster on this machine: {error}; "
            "or set BURLA_CLUSTER to the address of a running one"
        ) from error
    except BaseException:
        remove_directory(directory)
        raise
    for base in {os.path.dirname(directory), MEMORY}:
        _sweep(base)
    return LocalCluster(directory, daemon)


def _spawn(owner: Owner, directory: str) -> subprocess.Popen[bytes]:
    seed = own_seed()  # the variable may have been changed since
    if seed is None:
        seed = random_seed()
    path = os.path.join(directory, SOCKET)
    line = command("burla.private.cli", path, str(owner), str(seed))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    output = os.open(os.path.join(directory, LOG), flags, 0o600)
    try:
        return subprocess.Popen(  # inherits the environment: the calls are to see it
            line,
            env=os.environ | {SEED_VARIABLE: str(seed)},  # what forks workers is forked from it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the address, which we know
            stderr=output,
            cwd=directory,  # the caller's may be deleted, or unmounted later
            start_new_session=True,  # Ctrl-C in the caller's terminal is not for it
        )
    finally:
        os.close(output)


def _kill_forks(directory: str) -> None:
    """Kill what a daemon that is gone has forked; its directory is in their command lines."""
    mark = os.fsencode(directory) + b"/"
    with contextlib.suppress(OSError):  # no /proc
        for name in os.listdir("/proc"):
            with (
                contextlib.suppress(OSError, ValueError),
                open(f"/proc/{name}/cmdline", "rb") as file,
            ):
                if any(word.startswith(mark) for word in file.read().split(b"\0")):
                    os.kill(int(name), signal.SIGKILL)
                    os.killpg(int(name), signal.SIGKILL)


def _make_directory() -> str:
    """Return a new directory that only this user may enter, short enough for a socket in it."""
    pid = os.getpid()
    prefix = f"burla-{pid}-{process_started(pid) or ''}-{this_host()}-"
    failures = []
    for base in bases():
        directory = os.path.join(base, prefix + os.urandom(4).hex())
        try:
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o700)  # whatever the umask is
        except OSError as error:
            failures.append(f"{base}: {error.strerror}")
        else:
            return directory
    raise ClusterError(
        "cannot make a directory for the private cluster of this process "
        f"({'; '.join(failures) or 'no base directory'}); set TMPDIR to a writable one with at "
        f"most {BASE_BYTES_MAX} bytes in its path"
    )


def bases() -> list[str]:
    """Return directories for files that live as long as a process, in order of preference."""
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    bases = [*named, "/tmp", "/var/tmp", *runtime_directories(), "/dev/shm"]
    return [b for b in bases if os.path.isabs(b) and len(os.fsencode(b)) <= BASE_BYTES_MAX]


def address_in(directory: str) -> str:
    """Return the address of the private cluster of a directory."""
    return f"ipc://{os.path.join(directory, SOCKET)}"


def _sweep(base: str) -> None:
    """Remove what the clusters of dead owners left, which happens if all were killed at once."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            found = DIRECTORY.fullmatch(entry.name)
            if found is None or found[3] != this_host():
                continue
            owner = Owner(int(found[1]), int(found[2]) if found[2] else None)
            mine = entry.stat(follow_symlinks=False).st_uid == os.getuid()
            if mine and found[2] and not owner.alive():
                remove_directory(entry.path)


def _wait_ended(
    daemon: subprocess.Popen[bytes], timeout_s: float, impatience: _Impatience | None = None
) -> None:
    """Return when it has ended, at once when it does (Popen.wait looks every 50 ms), or late."""
    if daemon.poll() is not None:
        return
    try:
        pidfd = os.pidfd_open(daemon.pid)
    except (OSError, AttributeError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(timeout_s)
        return
    until = time.monotonic() + timeout_s
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while not (impatience and impatience.shown) and time.monotonic() < until:
            if poll.poll(IMPATIENCE_MS):
                break
    finally:
        os.close(pidfd)
    daemon.poll()


def _tail(path: str) -> str:
    """Return the last words in a log, on lines of their own; empty when there are none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return f"; its last words:\n{text}" if text else ""


def _end_with_process() -> None:
    with _lock:
        for cluster in (*_retired, *([] if _cluster is None else [_cluster])):
            cluster.end()


def _forget_in_child() -> None:
    global _lock, _cluster
    _lock = threading.Lock()  # another thread of the parent may have held it
    for cluster in (*_retired, *([] if _cluster is None else [_cluster])):
        cluster.disown()
    _retired.clear()
    _cluster = None


atexit.register(_end_with_process)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
