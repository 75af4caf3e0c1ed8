"""Programs at a terminal of their own, in its foreground."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from waiting import LATE_S


@contextmanager
def at_terminal(
    line: Sequence[str], env: Mapping[str, str], *, columns: int = 80, lines: int = 24
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command; yield it and our end of its terminal."""
    ours, theirs = pty.openpty()
    set_size(theirs, columns, lines)
    process = subprocess.Popen(
        line,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait(LATE_S)
        os.close(ours)


def set_size(end: int, columns: int, lines: int) -> None:
    """Let a terminal have another size."""
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def read_until(terminal: int, text: str) -> str:
    """Return what the terminal shows up to `text`, or all of it when that never comes."""
    shown = b""
    os.set_blocking(terminal, False)
    until = time.monotonic() + LATE_S
    while text.encode() not in shown and time.monotonic() < until:
        with suppress(BlockingIOError):
            try:
                data = os.read(terminal, 4096)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                break  # the other end is closed
            shown += data
            continue
        time.sleep(0.01)
    return shown.decode()
