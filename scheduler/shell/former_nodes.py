"""Which nodes there were, in a file, so that the next life of the scheduler knows for whom to wait.

The inputs of a job that goes on may be held by any of them. Once all have said what they hold, the
rest can be given out; else that must wait for as long as it takes any nodelet to come back. A node
that is missing has the time since when, so that a scheduler which is killed again and again does
not wait for it in each of its lives.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.1
ID_BYTES = 16
MISSING_S = 30.0  # a node that is missing for so long, in several lives of us, is awaited no more


def read(path: Path, now_s: float) -> dict[bytes, float] | None:
    """Return the ids of the nodes to wait for, and since when each is missing, in Unix time.

    None: nothing is known.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        found = {bytes.fromhex(each): float(since[0]) if since else now_s for each, *since in lines}
    except (OSError, ValueError):
        return None
    if not all(len(each) == ID_BYTES for each in found):
        return None
    return {each: min(since, now_s) for each, since in found.items() if now_s < since + MISSING_S}


async def keep(
    path: Path,
    expected: Callable[[], frozenset[bytes] | None],
    awaited: Callable[[], frozenset[bytes]],
    missing: Mapping[bytes, float],
) -> None:
    """Write them whenever they change, until cancelled.

    Args:
        path: of the file.
        expected: returns those that a next life should wait for; None: what is written stays.
        awaited: returns which of them have not come back since this one began.
        missing: what was read at the beginning.
    """
    written: dict[bytes, float] | None = None
    while True:
        if (ids := expected()) is not None:
            late = awaited()
            now = {each: missing.get(each, time.time()) if each in late else 0.0 for each in ids}
            if now != written:
                with suppress(OSError):  # it is tried again
                    await asyncio.to_thread(_write, path, now)
                    written = now
        await asyncio.sleep(LOOK_S)


def _write(path: Path, nodes: Mapping[bytes, float]) -> None:
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        for each, since in sorted(nodes.items()):
            file.write(f"{each.hex()} {since:.3f}\n" if since else f"{each.hex()}\n")
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
