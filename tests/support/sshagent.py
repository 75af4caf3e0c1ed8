"""An ssh-agent of a test's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts import run


@contextmanager
def agent(*keys: Path) -> Iterator[None]:
    """Run an ssh-agent that holds `keys`."""
    before = dict(os.environ)
    for line in run("ssh-agent", "-s").splitlines():
        name, found, value = line.partition("; export")[0].partition("=")
        if found and name.startswith("SSH_A"):
            os.environ[name] = value
    try:
        for key in keys:
            run("ssh-add", "-q", key)
        yield
    finally:
        run("ssh-agent", "-k")
        os.environ.clear()
        os.environ.update(before)
