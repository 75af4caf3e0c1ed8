"""What batch systems have in common: their commands, and how a node says that it is ready.

Whoever submits sees the same file system as the nodes, by which these say it.
"""

import subprocess
import time
from collections.abc import Container
from pathlib import Path

from burla.provisioning.core.machines import BadConfig, ProvisioningError, printable, tail
from burla.provisioning.core.steps import READY_S_MAX

CALL_S = 60.0  # its server may be busy


def call(line: list[str], of: str, stdin: str = "", fine: Container[int] = (0,)) -> str:
    """Return what a command of a batch system says.

    Args:
        line: the command.
        of: name of the system, for people.
        stdin: for the command.
        fine: exit codes that are no failure.

    Raises:
        ProvisioningError: it fails, or is not there.
    """
    try:
        done = subprocess.run(
            line, input=stdin, capture_output=True, text=True, timeout=CALL_S, check=False
        )
    except FileNotFoundError:
        raise BadConfig(
            f"{line[0]} is not installed here: run this on a machine with {of}"
        ) from None
    except subprocess.TimeoutExpired:
        raise ProvisioningError(f"{line[0]} did not answer within {CALL_S:.0f} s") from None
    if done.returncode not in fine:
        raise ProvisioningError(f"{line[0]}: {tail(done.stderr) or 'failed without saying why'}")
    return printable(done.stdout, lines=True)


def is_ready(file: Path) -> bool:
    """Return whether the nodelet that touches this ready file serves a scheduler now."""
    try:
        heard_s = file.stat().st_mtime
    except OSError:
        return False
    return time.time() - heard_s <= READY_S_MAX
