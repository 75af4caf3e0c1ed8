"""The lines of an SSH config with what it includes: paramiko passes over `Include`."""

import glob
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from burla.provisioning.core.machines import ProvisioningError

DEPTH_MAX = 16  # files that include each other, as for ssh
KEYWORD = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)")


def config_lines(path: Path, directory: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a config, those of the files that it includes in their place.

    Args:
        path: of the config.
        directory: that relative names are below.
        depth: how many files lead here.

    Raises:
        ProvisioningError: the files include each other endlessly.
        OSError: one cannot be read.
        ValueError: a name has a quote too few.
    """
    if depth > DEPTH_MAX:
        raise ProvisioningError(f"{path}: more than {DEPTH_MAX} levels of Include")
    block = "Host *"  # what the lines are about; an included file begins others, that end with it
    for line in path.read_text().splitlines():
        found = KEYWORD.match(line)
        keyword = found[1].lower() if found else ""
        if found is None or keyword != "include":
            block = line if keyword in ("host", "match") else block
            yield line
            continue
        for pattern in shlex.split(found[2]):
            for name in sorted(glob.glob(os.path.join(directory, os.path.expanduser(pattern)))):
                yield from config_lines(Path(name), directory, depth + 1)
        yield block
