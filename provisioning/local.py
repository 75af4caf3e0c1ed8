"""This machine as a machine: a Transport without a network."""

import os
import subprocess
from pathlib import Path

from .machines import OUTPUT_CHARS_MAX, ConnectionLost, Finished


class LocalTransport:
    """Runs commands on this machine, as `ssh` would on another one."""

    def __init__(self, home: Path | None = None, **environment: str) -> None:
        """Use another home directory, if one is given, and only what a login would set."""
        keep = {k: v for k, v in os.environ.items() if k in ("HOME", "PATH", "LANG", "USER")}
        self._environment = keep | ({"HOME": str(home)} if home else {}) | environment

    def run(self, command: str, stdin: bytes = b"", *, timeout_s: float) -> Finished:
        """Run a command; see `machines.Transport`."""
        try:
            done = subprocess.run(
                ["sh", "-c", command],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(f"no end of it within {timeout_s:.0f} s") from error
        text = done.stdout[-OUTPUT_CHARS_MAX:].decode(errors="replace")
        return Finished(done.returncode, text)

    def close(self) -> None:
        """Do nothing: there is no connection."""
