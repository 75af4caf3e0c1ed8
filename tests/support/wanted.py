"""What the tests want machines to become."""

import fcntl
import hashlib
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from burla.protocol import VERSION
from burla.provisioning.core.steps import Wanted
from burla.provisioning.install.bootstrap import script_digest
from burla.provisioning.install.wheels import WHEEL, Wheels, cache, gather, xz_for_node

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
CHECKOUT = hashlib.sha256(__file__.encode()).hexdigest()[:12]
CACHE = Path("/tmp") / f"burla-tests-{os.getuid()}" / CHECKOUT  # downloaded once, for all runs


def wheelhouse() -> Wheels:
    """Return our wheel and all that it needs; the rest of it is downloaded once by pip."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers want it, too
        return gather(CACHE, "auto", MINOR)


def give_packed_wheel(home: Path) -> None:
    """Put our wheel for nodes into the cache of somebody, as an earlier run of theirs leaves it."""
    xz_for_node()
    place = home / ".cache/burla/wheels"
    place.mkdir(parents=True, exist_ok=True)
    for kept in cache().glob("node-*.xz"):
        with suppress(FileNotFoundError):  # it is an old one
            shutil.copy2(kept, place)


def want(wheels: Wheels, scheduler: str, **other: Any) -> Wanted:
    """Return a node with two CPUs."""
    said: dict[str, Any] = {
        "cluster": "test",
        "name": "n1",
        "scheduler": scheduler,
        "python": MINOR,
        "version": VERSION,
        "wheel": WHEEL,
        "wheels": wheels.digests,
        "is_wheelhouse": wheels.is_wheelhouse,
        "requirements": wheels.requirements,
        "cpus": 2,
        "script": script_digest(),
    }
    return Wanted(**said | other)


def installers(node: Path) -> set[str]:
    """Return what has installed the packages of a node in this folder."""
    found = node.glob("venv/lib/python*/site-packages/*.dist-info/INSTALLER")
    return {file.read_text().strip() for file in found}
