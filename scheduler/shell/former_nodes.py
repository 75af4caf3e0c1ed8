"""Which nodes there were, in a file, so that the next life of the scheduler knows for whom to wait.

The inputs of a job that goes on may be held by any of them. Once all have said what they hold, the
rest can be given out; else that must wait for as long as it takes any nodelet to come back.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.1
ID_BYTES = 16


def read(path: Path) -> set[bytes] | None:
    """Return the ids of the nodes that there were last; None: nothing is known."""
    try:
        found = {bytes.fromhex(line) for line in path.read_text().splitlines()}
    except (OSError, ValueError):
        return None
    return found if all(len(each) == ID_BYTES for each in found) else None


async def keep(path: Path, there: Callable[[], frozenset[bytes] | None]) -> None:
    """Write them whenever they change, until cancelled; None: what is written stays."""
    written: frozenset[bytes] | None = None
    while True:
        now = there()
        if now is not None and now != written:
            with suppress(OSError):  # it is tried again
                await asyncio.to_thread(_write, path, now)
                written = now
        await asyncio.sleep(LOOK_S)


def _write(path: Path, ids: frozenset[bytes]) -> None:
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        file.writelines(f"{each.hex()}\n" for each in sorted(ids))
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
