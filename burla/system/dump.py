"""What a daemon knows, as JSON in a file, whenever an operator asks by SIGUSR2.

Until then it costs nothing. The state is plain data (dicts, lists, numbers, text): whoever makes it
leaves out secrets and payloads, and still the file is for this user only.
"""

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

_States = dict[Path, Callable[[], object]]
_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, _States] = WeakKeyDictionary()


def write_dump(path: Path, what: object) -> None:
    """Write `what` as JSON to `path`, mode 0600; a reader finds all of it, or the file before.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # left by a process of this number that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # never through somebody's link
    try:
        with os.fdopen(os.open(part, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(what, file, indent=1)
            file.write("\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def dump_on_signal(path: Path, state: Callable[[], object]) -> None:
    """From now on write `state()` to `path` at each SIGUSR2, too, and log where it is.

    To be called inside the event loop that owns the state: it is read between two events. Signals
    are the main thread's: a loop in another one, as tests have it, is not a daemon and hears none.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    loop = asyncio.get_running_loop()
    states = _asked.setdefault(loop, {})
    states[path] = state
    loop.add_signal_handler(signal.SIGUSR2, _dump_all, states)


def _dump_all(states: _States) -> None:
    for path, state in states.items():
        try:
            write_dump(path, state())
        except OSError as error:
            log.error("cannot write the state to %s: %s", path, error.strerror)
        else:
            log.warning("state written to %s", path)  # also where only warnings are logged
