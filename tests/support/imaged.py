"""What calls in an image see. In a module of its own, since an image need not have pytest."""

import os
import sys
from typing import Any


def look(number: int) -> dict[str, Any]:
    import only_there  # type: ignore[import-not-found]  # the image has it

    print(f"call {number}")
    with open("job.txt", "w") as file:
        file.write("files can be written where calls work")
    with open("/etc/flavour") as file:
        flavour = file.read()
    return {
        "number": number,
        "module": only_there.VALUE,
        "flavour": (flavour, os.environ["FLAVOUR"]),
        "python": sys.executable,
        "directory": os.getcwd(),
        "uid": os.getuid() >= 2_000_000_000,
        "sees": [path for path in ("/usr/bin/env", "/home", "/boot") if os.path.exists(path)],
        "writes": [path for path in ("/", "/etc", "/usr/local/bin") if os.access(path, os.W_OK)],
        "processes": sum(name.isdigit() for name in os.listdir("/proc")) < 10,
        "random": len(os.urandom(4)),
    }


def fail(number: int) -> None:
    raise KeyError(number)
