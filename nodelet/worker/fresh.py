"""Starting a fresh Python that runs a module of this room: the zygote, the supervisor, a worker.

What is settled when a Python starts, as the seed of `hash()`, can be chosen only so.
"""

import os
import sys
from collections.abc import Mapping

import burla

SEED_VARIABLE = "PYTHONHASHSEED"
_PROGRAM = (
    "import gc, sys; gc.disable(); sys.path.append(sys.argv[1]); "  # no import is ever garbage
    "from burla.nodelet.worker.{} import main; gc.enable(); main(sys.argv[2:])"
)


def command(module: str, *words: object) -> list[str]:
    """Return the command line that calls `main(words)` of a module of this room, with few imports.

    The words are texts there.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(burla.__file__ or "")))
    options = ["-P"]  # the working directory may hold a `random.py`
    options += ["-B"] * sys.dont_write_bytecode
    options += ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    line = [sys.executable, *options, "-c", _PROGRAM.format(module)]
    return [*line, home, *map(str, words)]


def variables(hash_seed: int) -> Mapping[str, str]:
    """Return the environment in which such a Python has this seed."""
    return {**os.environ, SEED_VARIABLE: str(hash_seed)}


def hide_seed() -> None:
    """Forget the variable: whoever is started from here is not to have this seed."""
    os.environ.pop(SEED_VARIABLE, None)
