"""Runs a command as a user without any right: `python nobody.py COMMAND...`, as root.

This Python may lie where only root may enter (its home): it is shown to the user all the same, in a
mount namespace of the command's own.
"""

import os
import sys

from burla.nodelet.isolation import linux, probe, sandbox

UID = 61_234  # as people have; that of "nobody" means something else to a sandbox

HOME_VARIABLE = "BURLA_TEST_HOME"  # its home, if it is to have one


def main(command: list[str]) -> None:
    """Become the command."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    wanted = probe.confinement(1 << 30, 1, "tcp://127.0.0.1:1", None)
    covers, binds = sandbox.plan(wanted)
    for shut in filter(None, map(sandbox._shut, binds)):
        if shut not in covers:  # below /tmp, which a sandbox covers as a whole
            covers.append(shut)
    opened = [(path, os.open(path, os.O_PATH)) for path in binds]
    for path in covers:
        linux.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    for path, fd in opened:
        sandbox.bind(path, fd)
        os.close(fd)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.environ["HOME"] = os.environ.pop(HOME_VARIABLE, "/nonexistent")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
