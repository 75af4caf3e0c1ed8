"""Where a daemon writes what happens: stderr, as lines; as a log file, it never grows for good.

Who starts a daemon opens the file, for appending: what was there before stays. The daemon itself
renames it when it is long (NAME.log, NAME.log.1, ...) and goes on in a new one, with all that its
libraries and children write to stderr. Under systemd and at a terminal there is nothing to do.
"""

import contextlib
import logging
import os
import stat
import sys
from typing import Any

if sys.platform != "win32":
    import fcntl


FILE_BYTES_MAX = 16 << 20  # a hundred thousand lines
KEPT = 3  # files before the one that is written to
LEVELS = ("debug", "info", "warning", "error")
STDERR = 2


class Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic for type checkers only
    """Writes to stderr, and changes the file behind that when it is long."""

    def __init__(self, path: str | None, bytes_max: int = FILE_BYTES_MAX) -> None:
        """Write to stderr; `path`: of the log file that it is, if it is one."""
        super().__init__(sys.stderr)
        self._path, self._bytes_max = path, bytes_max

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        super().emit(record)
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # a full disk must not stop the daemon
            if os.fstat(STDERR).st_size >= self._bytes_max:
                self._change(self._path)

    def _change(self, path: str) -> None:
        # several daemons may append to one file: only the first that notices renames it
        if os.path.exists(path) and os.stat(path).st_ino == os.fstat(STDERR).st_ino:
            for number in range(KEPT - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{path}.{number}", f"{path}.{number + 1}")
            os.replace(path, f"{path}.1")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(path, flags, 0o600)
        try:
            os.dup2(new, STDERR)
        finally:
            os.close(new)


def log_file(descriptor: int = STDERR) -> str | None:
    """Return the path of the log file that is open as `descriptor`; None: it is no such file."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        is_appended = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
    except OSError:  # no /proc; stderr is closed
        return None
    return path if is_appended and path.endswith(".log") else None


def set_up(name: str, level: int) -> None:
    """Let all that is logged go to stderr, one line each."""
    handler = Handler(log_file())
    handler.setFormatter(Formatter(f"%(asctime)s {name} %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


class Formatter(logging.Formatter):
    """Writes a line, whatever is in it: others can neither begin one nor speak to a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # its name in logging
        """Return the line of a record."""
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # likewise
        """Return the lines of a traceback."""
        return "\n".join(map(_escaped, super().formatException(ei).split("\n")))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
