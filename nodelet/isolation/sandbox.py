"""The inside of a sandbox: its namespaces, its file system, and workers without any privilege.

Runs in forked children of the supervisor. Nothing can be written to but memory of the lease's own.

A sandbox is made ahead and serves one lease, or several of one session (wiping.py). Its init
(process 1 of its pid namespace, the zygote of the lease) keeps what privileges it has; workers lose
them all before they meet the function.
When the init ends the kernel kills whatever else is in the namespace, and with the last process go
its mounts, its memory and its System V and POSIX IPC: what a job leaves behind cannot be left.

It must never import zmq or asyncio, nor trust anything that a worker says.
"""

import os
import resource
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import msgpack

from . import linux, outside
from .outside import is_below

HOME = "/tmp/home"
JOB_FOLDER = "/tmp/job"  # for files of the job, where it works if not in the caller's directory
PRIVATE = ("/tmp", "/var/tmp", "/dev/shm")  # where every user may write
INODES_MAX = 1 << 20  # files of a lease; each takes about a KiB of the kernel's memory
COVER_BYTES = 1 << 20  # of a directory that only holds mount points
PROCESSES = 4096  # of a lease, threads included, besides
PROCESSES_PER_SLOT = 64  # for each call that runs at once; numeric libraries start one per CPU
MEMORY_SHARE = 2  # files in memory may take the 1/2 of the node's that Linux gives a tmpfs too


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a sandbox is to be like; the same for all of a nodelet."""

    has_root: bool  # a uid of its own; else a user namespace in which we are who we are
    ram: int  # bytes of the node
    slots: int  # calls that may run at once
    needed: tuple[str, ...]  # directories that Python and burla are loaded from
    hidden: tuple[str, ...]  # files and directories that are the nodelet's alone, as its keys
    use_landlock: bool = False  # instead of namespaces: see seal.py

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed.hex()

    @classmethod
    def parse(cls, text: str) -> "Confinement":
        """Return what `str` of one has written."""
        words = msgpack.unpackb(bytes.fromhex(text))
        return cls(**words | {name: tuple(words[name]) for name in ("needed", "hidden")})

    def processes(self) -> int:
        """Return how many processes and threads a lease may have."""
        return PROCESSES + PROCESSES_PER_SLOT * self.slots

    def file_bytes(self) -> int:
        """Return how much a lease may keep in files."""
        return self.ram // MEMORY_SHARE


# --- once a sandbox ---


def unshare(confinement: Confinement) -> None:
    """Have the next child be the init of a new sandbox; it calls `furnish` then."""
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
    if confinement.has_root:
        linux.unshare(flags)
        return
    uid, gid = os.geteuid(), os.getegid()
    with suppress(OSError):  # who may not give them up keeps them; `outside` hides what listens
        os.setgroups([])
    linux.unshare(flags | linux.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),  # or an unprivileged process may not map a group
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def furnish(confinement: Confinement, uid: int, gid: int) -> list[str]:
    """Make the file system of a sandbox, as its init; return what of the covered is shown there."""
    # Services have 077: then the lease could not even enter what leads to the Python that is shown.
    os.umask(0o022)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    covers, binds = plan(confinement, outside.CLOSED)
    blanks, inner = rest(confinement, covers, binds)
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = [(path, os.open(path, flags)) for path in binds]
    linux.make_read_only()
    linux.mount("proc", "/proc", "proc", _SAFE)
    with suppress(OSError):
        linux.leave_keyring()
    if os.path.isdir("/dev/mqueue"):
        with suppress(OSError):  # a kernel without; the queues are private all the same
            linux.mount("mqueue", "/dev/mqueue", "mqueue", _SAFE)
    _mount_private(confinement.file_bytes(), uid, gid)
    for path in covers:
        linux.mount("tmpfs", path, "tmpfs", _SAFE, f"size={COVER_BYTES},mode=755")
    for path, fd in opened:
        bind(path, fd)
        os.close(fd)
    for path in inner:
        linux.mount("tmpfs", path, "tmpfs", _SAFE, f"size={COVER_BYTES},mode=755")
    for path in blanks:
        outside.blank(path)
    outside.mount_terminals()
    for path in [*covers, *inner]:
        linux.mount("", path, "", _SAFE | _READ_ONLY)
    with suppress(OSError):  # only root may
        _set_killed_last(True)
    outside.shut_abstract_sockets()
    os.chdir(JOB_FOLDER)
    return binds


def share(directory: str) -> None:
    """Let jobs write to a directory that all nodes have, as far as its modes let them.

    Called by the init at the begin of a lease. What cannot be done leaves it as it is: to be read.
    """
    path = os.path.realpath(directory)
    if not os.path.isdir(path) or is_below(path, PRIVATE):
        return
    with suppress(OSError):
        linux.mount(path, path, "", linux.MS_BIND)
        linux.make_one_writable(path)


def _set_killed_last(wanted: bool) -> None:
    """Have the kernel, short of memory, take anybody before this process; or treat it as usual."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000" if wanted else "0")


_SAFE = linux.MS_NOSUID | linux.MS_NODEV
_READ_ONLY = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY


def _mount_private(size: int, uid: int, gid: int) -> None:
    """Mount one file system in memory, and its parts where everybody may write: one limit."""
    targets = sorted({os.path.realpath(path) for path in PRIVATE if os.path.isdir(path)})
    stage = os.path.realpath("/tmp")
    options = f"size={size},nr_inodes={INODES_MAX},mode=755"
    linux.mount("tmpfs", stage, "tmpfs", _SAFE, options)
    for number, target in enumerate([*(t for t in targets if t != stage), stage]):
        part = os.path.join(stage, str(number))
        os.mkdir(part)
        os.chmod(part, 0o1777)
        if target == stage:
            for folder in (HOME, JOB_FOLDER):
                path = os.path.join(part, os.path.basename(folder))
                os.mkdir(path, 0o700)
                os.chown(path, uid, gid)
        linux.mount(part, target, "", linux.MS_BIND)


def bind(path: str, fd: int) -> None:
    """Mount what `fd` refers to at `path`, which is made if it is not there any more."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISLNK(mode):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.symlink(os.readlink("", dir_fd=fd), path)
        return
    if stat.S_ISDIR(mode):
        os.makedirs(path, 0o755, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    linux.mount(f"/proc/self/fd/{fd}", path, "", linux.MS_BIND | linux.MS_REC)


def plan(confinement: Confinement, closed: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return which directories are to be covered, and what of the covered is to be shown again.

    Args:
        confinement: says what is hidden and what is needed.
        closed: is covered as well.
    """
    covers: list[str] = []
    for path in sorted({os.path.realpath(path) for path in (*confinement.hidden, *closed)}):
        if os.path.isdir(path) and not is_below(path, [*PRIVATE, *covers]):
            covers.append(path)
    binds: list[str] = []
    for path in _outermost(confinement.needed):
        if path in PRIVATE:  # on somebody's PYTHONPATH: each lease has its own
            continue
        shut = _shut(path) if confinement.has_root else None
        if shut is not None and not is_below(shut, [*PRIVATE, *covers]):
            covers.append(shut)
        if is_below(path, [*PRIVATE, *covers]):
            # the directory itself may be shut too: show what is in it
            inside = shut == path or (confinement.has_root and not _may_enter(path))
            binds += [e.path for e in os.scandir(path)] if inside else [path]
    binds += [path for path in outside.shown() if is_below(path, covers) and path not in binds]
    return _outermost(covers), binds  # one below another would be hidden by it, and not be found


def rest(
    confinement: Confinement, covers: Sequence[str], binds: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return which files and which directories are still to be hidden after `plan`.

    Those are files that lie in the open, and what lies in a directory that is shown.
    """
    files, inner = set(), set()
    needed = {os.path.realpath(path) for path in confinement.needed}
    for path in {os.path.realpath(path) for path in confinement.hidden}:
        if os.path.isdir(path):
            if is_below(path, binds) and path not in needed:
                inner.add(path)
        elif os.path.exists(path):
            files.add(path)
    if not confinement.has_root:  # else a lease has no more rights than any stranger
        files |= {*outside.sockets(), *outside.terminals()}
    gone = (*PRIVATE, *covers)
    open_files = [path for path in files if is_below(path, binds) or not is_below(path, gone)]
    return [path for path in sorted(open_files) if not is_below(path, [*inner])], sorted(inner)


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted({os.path.realpath(path) for path in paths}):
        if os.path.exists(path) and not is_below(path, kept):
            kept.append(path)
    return kept


def _shut(path: str) -> str | None:
    """Return the outermost directory on the way to `path` that strangers may not enter."""
    way = [path]
    while way[-1] != "/":
        way.append(os.path.dirname(way[-1]))
    return next((part for part in reversed(way) if not _may_enter(part)), None)


def _may_enter(path: str) -> bool:
    status = os.stat(path)
    return not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o005 == 0o005


# --- once a worker ---


def confine(confinement: Confinement, uid: int, gid: int) -> None:
    """Take everything from this process, a worker to be, that is not the lease's."""
    with suppress(OSError):
        _set_killed_last(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_processes(confinement.processes())
    linux.set_no_new_privileges()
    linux.drop_bounding_set()
    become(confinement, uid, gid)
    linux.set_dumpable(True)  # to itself; its neighbours are of the same lease
    os.environ.update(
        HOME=HOME, TMPDIR="/tmp", TEMP="/tmp", TMP="/tmp", USER="burla", LOGNAME="burla"
    )
    for name in OF_THE_USER:
        os.environ.pop(name, None)


def become(confinement: Confinement, uid: int, gid: int) -> None:
    """Have the user ids of a lease from now on, and no more rights than it."""
    if confinement.has_root:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    else:
        linux.drop_capabilities()


# Where the nodelet's user has what a job does not see.
OF_THE_USER = (
    *("BURLA_CONFIG_DIR", "BURLA_STATE_DIR", "XDG_RUNTIME_DIR"),
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"),
)


def limit_processes(count: int) -> None:
    """Let this user have at most `count` processes and threads, as seen from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [one for one in (soft, hard, count) if one != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (min(limits), min(limits)))
