"""Files that came with the call are put into the folder of the job, once, before any call."""

import fcntl
import os
from collections.abc import Mapping

import msgpack


def put_down(attached: Mapping[str, bytes | memoryview], folder: str) -> None:
    """Write the files that are attached to a function, unless that is done.

    Workers of a job do so one after the other: what a call has changed since stays changed.

    Raises:
        OSError: there is no room for them, or no folder.
    """
    mark = os.open(f"{folder}.files", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX)
        if os.fstat(mark).st_size:
            return
        for name, part, start, size, is_program in msgpack.unpackb(attached["files"]):
            content = memoryview(attached.get(f"files/{part}", b""))[start : start + size]
            _put(os.path.join(folder, _checked(os.fsdecode(name))), content, is_program)
        os.write(mark, b"1")
    finally:
        os.close(mark)


def _put(path: str, content: memoryview, is_program: bool) -> None:
    if path.endswith("/"):
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(path, flags, 0o755 if is_program else 0o644), "wb") as file:
        file.write(content)


def _checked(name: str) -> str:
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(f"{name!r} would lie outside of the job's folder")
    return name
