"""The audit log: one JSON line for whatever a key did or was kept from doing. Appended to, only.

It names people and public keys, never a secret, a token, a topic or a payload. Bounded: a file that
has grown is renamed to `.1`, and the lines of a flood are counted instead of written.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

FILE_BYTES_MAX = 64 << 20  # half a million lines; the one before is kept, too


class Audit:
    """Appends to one file; other processes may, too."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened for appending.
        """
        self._path = path
        self._file = self._open()

    def write(
        self, now_s: float, user: str, key: str, operation: str, job: str | None, result: str
    ) -> None:
        """Append one line.

        Args:
            now_s: Unix time.
            user: the name of its user; empty: not known.
            key: fingerprint of a public key.
            operation: what was asked for, such as "open job".
            job: id of the job, if it is about one.
            result: "ok", or why not.
        """
        time = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds")
        facts = {"time": time, "user": user, "key": key, "operation": operation, "job": job}
        line = json.dumps({**facts, "result": result[:500]}) + "\n"
        os.write(self._file, line.encode())  # one write: lines of others don't mix with it
        if os.fstat(self._file).st_size >= FILE_BYTES_MAX:
            os.replace(self._path, f"{self._path}.1")
            self.close()
            self._file = self._open()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)
