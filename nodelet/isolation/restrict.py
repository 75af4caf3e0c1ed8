"""What the zygote does for its own and its workers' isolation where there are no sandboxes.

Whatever else: nobody traces or reads the zygote, nor a blank, which will serve another lease. With
`use_landlock` it also gives up the file system; see landlock.py.
"""

import os
from contextlib import suppress

from . import by_descriptor, landlock, linux, outside, seccomp
from .sandbox import OF_THE_USER, Confinement, limit_processes


def seal(scratch: str, text: str) -> None:
    """Shut this process in, with all that it will fork, as `text` of a `Confinement` says."""
    confinement = Confinement.parse(text)
    linux.set_dumpable(False)
    # counts all that this user runs: what runs already is let be
    limit_processes(confinement.processes() + _running())
    if confinement.use_landlock:
        with suppress(OSError):  # who may not give them up keeps them
            os.setgroups([])
        # terminals: what the user types there is not for jobs
        hidden = (*confinement.hidden, "/dev/pts", *outside.terminals())
        landlock.restrict(scratch, hidden, confinement.needed)
        if seccomp.is_there():
            seccomp.restrict()
            by_descriptor.install()
        os.environ.update(HOME=scratch, TMPDIR=scratch, TEMP=scratch, TMP=scratch)
        for name in OF_THE_USER:
            os.environ.pop(name, None)
        os.chdir(scratch)


def _running() -> int:
    """Return how many processes there are at least."""
    return sum(name.isdigit() for name in os.listdir("/proc"))
