"""What the zygote does for its own and its workers' isolation where there are no sandboxes.

Whatever else: nobody traces or reads the zygote, nor a blank, which will serve another lease. With
`use_landlock` it also gives up the file system; see landlock.py.
"""

import os

from . import landlock, linux
from .sandbox import Confinement, limit_processes


def seal(scratch: str, text: str) -> None:
    """Shut this process in, with all that it will fork, as `text` of a `Confinement` says."""
    confinement = Confinement.parse(text)
    linux.set_dumpable(False)
    # counts all that this user runs: what runs already is let be
    limit_processes(confinement.processes() + _running())
    if confinement.use_landlock:
        landlock.restrict(scratch, confinement.hidden, confinement.needed)
        os.environ.update(HOME=scratch, TMPDIR=scratch, TEMP=scratch, TMP=scratch)
        os.environ.pop("BURLA_CONFIG_DIR", None)
        os.chdir(scratch)


def _running() -> int:
    """Return how many processes there are at least."""
    return sum(name.isdigit() for name in os.listdir("/proc"))
