"""Starting a fresh Python that runs a module of this room: the zygote, the supervisor, a worker.

What is settled when a Python starts, as the seed of `hash()`, can be chosen only so.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

import burla

SEED_VARIABLE = "PYTHONHASHSEED"
_PROGRAM = (  # no import is ever garbage: to look for some takes a tenth of the start
    "import gc, sys; gc.disable(); sys.path.append(sys.argv[1]); "
    "from burla.nodelet.worker.{} import main; gc.freeze(); gc.enable(); main(sys.argv[2:])"
)
_PROGRAM_IN_IMAGE = _PROGRAM.replace("append(", "insert(0, ")  # it may have a burla of its own


class Python(NamedTuple):
    """Another Python than ours: that of a container image."""

    executable: str
    home: str  # where it finds burla, and nothing of its own


def command(module: str, *words: object, python: Python | None = None) -> list[str]:
    """Return the command line that calls `main(words)` of a module of this room, with few imports.

    The words are texts there. It is for our Python, if there is no other.
    """
    program = _PROGRAM if python is None else _PROGRAM_IN_IMAGE
    if python is None:
        home = os.path.dirname(os.path.dirname(os.path.abspath(burla.__file__ or "")))
        python = Python(sys.executable, home)
    options = ["-P"]  # the working directory may hold a `random.py`
    options += ["-B"] * sys.dont_write_bytecode
    options += ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    line = [python.executable, *options, "-c", program.format(module)]
    return [*line, python.home, *map(str, words)]


def variables(hash_seed: int) -> Mapping[str, str]:
    """Return the environment in which such a Python has this seed."""
    return {**os.environ, SEED_VARIABLE: str(hash_seed)}


def hide_seed() -> None:
    """Forget the variable: whoever is started from here is not to have this seed."""
    os.environ.pop(SEED_VARIABLE, None)
