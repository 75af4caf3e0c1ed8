"""How far a lease is shut in: the best that this machine allows, found out by trying it.

| tier | needs | a lease has |
|---|---|---|
| uid | root | a user id, processes, IPC, /tmp and limits of its own; nothing else can be written |
| namespaces | user namespaces | the same, under the nodelet's user id; the user's home is hidden |
| landlock | Landlock | a scratch directory; nothing else can be written, keys cannot be read |
| process | | the rights of the nodelet's user; the nodelet cannot be traced or read |
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum

import burla
from burla.system.paths import runtime_directories, settings_directory, state_directory
from burla.transport.addresses import ipc_path

from . import cgroups, landlock, link_local, sandbox, seccomp
from .outside import is_below
from .sandbox import Confinement

PROBE_S = 30.0  # a machine under heavy load still imports Python within this
BEST = "best"
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from burla.nodelet.isolation.probe import main; "
    "main(sys.argv[2:])"
)
_STRANGER = 65534  # "nobody": a user who has no right on what must be readable for all


class Tier(StrEnum):
    """How a lease is shut in, best first; told to people."""

    UID = "uid"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    PROCESS = "process"

    def is_sandboxed(self) -> bool:
        """Return whether each lease has namespaces of its own."""
        return self in (Tier.UID, Tier.NAMESPACES)


def choose(wanted: str, confinement: Confinement) -> tuple[Tier, str]:
    """Return the tier for `wanted` ("best" or "process"), and why it is no better one.

    Waits for a process that tries them: a tenth of a second.
    """
    if wanted != BEST:
        return Tier.PROCESS, "asked for by --isolation"
    home = os.path.dirname(os.path.dirname(os.path.abspath(burla.__file__ or "")))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, home, str(confinement)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROBE_S,
        check=False,
    )
    if done.returncode:
        return Tier.PROCESS, (done.stderr.strip() or "the trial of it fails").splitlines()[-1]
    tier, _, why = done.stdout.partition("\n")
    return Tier(tier), why.strip()


def confinement(
    ram: int, slots: int, scheduler: str, key_file: str | None, packages: str = ""
) -> Confinement:
    """Return how sandboxes of this process are to be; `packages`: a directory they read, too."""
    has_root = os.geteuid() == 0
    images = [f"{packages}-images"] if packages else []  # whose jobs run in one see that one
    hidden = (*_hidden(scheduler, key_file, has_root), *images)
    needed = (*_needed(), *filter(None, [packages]))
    return Confinement(has_root, ram, slots, needed, hidden)


def fitted(confinement: Confinement, tier: Tier) -> Confinement:
    """Return how sandboxes of a tier are to be."""
    hidden = confinement.hidden
    if tier is not Tier.UID:  # root, too, may be without the rights that make it more than a user
        hidden = (*dict.fromkeys((*hidden, *_of_the_user())),)
    return replace(
        confinement,
        hidden=hidden,
        has_root=tier is Tier.UID,
        use_landlock=tier is Tier.LANDLOCK,
    )


def _needed() -> list[str]:
    """Return what Python and burla are loaded from: never the user's whole home, or more."""
    package = os.path.dirname(os.path.abspath(burla.__file__ or ""))
    links = [os.path.join(package, name) for name in os.listdir(package)]  # of a bare checkout
    paths = [*filter(None, sys.path), sys.prefix, sys.base_prefix]
    paths += [os.path.dirname(os.path.realpath(sys.executable)), os.path.dirname(package), package]
    paths += filter(os.path.islink, links)
    home = os.path.realpath(os.path.expanduser("~"))
    return [path for path in paths if not is_below(home, [os.path.realpath(path)])]


def _hidden(scheduler: str, key_file: str | None, has_root: bool) -> list[str]:
    """Return what is secret; root's own need not be all of it: modes guard it.

    The socket and the key file that we are told of are hidden with their directory, if that is for
    this user alone.
    """
    places = (settings_directory(), state_directory(), os.environ.get("BURLA_STATE_DIR"), key_file)
    found = [os.path.abspath(path) for path in places if path]
    for path in filter(None, (ipc_path(scheduler), key_file)):
        directory = os.path.dirname(os.path.realpath(path))
        if os.path.isdir(directory) and not os.stat(directory).st_mode & 0o077:
            found.append(directory)
    return _below_root(found) + ([] if has_root else _of_the_user())


def _of_the_user() -> list[str]:
    """Return directories of the user who runs this; agents listen in the runtime directory."""
    return _below_root([os.path.expanduser("~"), *runtime_directories()])


def _below_root(found: Sequence[str]) -> list[str]:
    return [path for path in found if os.path.isabs(path) and os.path.normpath(path) != "/"]


# --- the trial, in a process of its own ---


def main(argv: Sequence[str]) -> None:
    """Print the best tier that works, and why no better one does: `CONFINEMENT`."""
    wanted = Confinement.parse(argv[0])
    reasons = []
    for tier in (Tier.UID, Tier.NAMESPACES):
        if tier is Tier.UID and not wanted.has_root:
            continue
        why = _try(replace(wanted, has_root=tier is Tier.UID))
        if not why:
            break
        reasons.append(f"{tier}: {why}")
    else:
        if landlock.is_there():
            tier = Tier.LANDLOCK
            if not seccomp.is_there():
                reasons.append("no seccomp: modes and times of the user's files can be changed")
        else:
            tier = Tier.PROCESS
            reasons.append("landlock: the kernel has none")
    if tier is Tier.UID and _reaches_metadata(wanted):
        reasons.append("a cloud's metadata can be reached: that needs control groups of version 2")
    if tier is not Tier.PROCESS and not landlock.has_scopes():
        reasons.append("abstract sockets of others can be connected to: that needs Linux 6.12")
    print(tier, "; ".join(reasons), sep="\n")


def _try(wanted: Confinement) -> str:
    """Make a sandbox and a worker in it; return what does not work, empty: all does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.unshare(wanted)
            if (init := os.fork()) == 0:
                _be_worker(wanted)
                os._exit(0)
            if os.waitpid(init, 0)[1]:
                raise RuntimeError("its first process dies")
        except Exception as error:  # in either of the two
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as file:
        return file.read().decode()


def _reaches_metadata(wanted: Confinement) -> bool:
    """Return whether jobs reach what is link-local, though it is shut for them if we may."""
    group = cgroups.make(f"burla-trial-{os.getpid()}", wanted.ram, wanted.processes())
    try:
        if unified := group.unified():
            with suppress(OSError):  # systemd may do it for us
                link_local.shut(unified)
        pid = os.fork()
        if pid == 0:
            try:
                group.enter()
                os._exit(int(link_local.is_reached()))
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] != 0
    finally:
        group.remove()


def _be_worker(wanted: Confinement) -> None:
    # without root there is no other user than ourselves in the namespace
    uid, gid = (_STRANGER, _STRANGER) if wanted.has_root else (os.geteuid(), os.getegid())
    sandbox.furnish(wanted, uid, gid)
    sandbox.confine(wanted, uid, gid)
    for path in wanted.needed:
        if os.path.isdir(path):
            os.listdir(path)
    with open(os.path.join(sandbox.HOME, "trial"), "w") as file:
        file.write("a lease can write here")
