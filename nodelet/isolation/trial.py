"""Which tier of isolation works on this machine, found out by trying it.

In a process that has no threads: it forks, and what it forks takes namespaces and loses its rights.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from . import cgroups, landlock, link_local, sandbox, seccomp
from .sandbox import Confinement
from .tier import Tier

_STRANGER = 65534  # "nobody": a user who has no right on what must be readable for all


def main(argv: Sequence[str]) -> None:
    """Print the best tier that works, and why no better one does: `CONFINEMENT`."""
    print(*tried(Confinement.parse(argv[0])), sep="\n")


def tried(wanted: Confinement) -> tuple[Tier, str]:
    """Return the best tier that works, and why no better one does; in a process without threads."""
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
    return tier, "; ".join(reasons)


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
