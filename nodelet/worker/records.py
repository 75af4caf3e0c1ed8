"""Log records and warnings that arise in a worker, sent to the caller, whose handlers know them.

There they are formatted, filtered and written as if they had arisen there: to the caller's files,
once, and never to a file of this machine.
"""

import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from typing import Any

from burla.values import records
from burla.values.surroundings import Logging

_SENT = "_burla_sent"  # on a record: another logger on its way up has sent it
_lock = threading.RLock()  # one line at a time
_show_here = warnings.showwarning


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_new_lock)


def _send(token: bytes, fields: records.Fields) -> None:
    lines = records.lines_of(token, fields)
    with _lock:
        for stream in (sys.stdout, sys.stderr):  # both may go to one place
            with suppress(Exception):  # closed or replaced by the function
                stream.flush()
        for line in lines:
            data = memoryview(line)
            while data:
                data = data[os.write(2, data) :]


# --- logging ---


class Forwarder(logging.Handler):
    """Stands for the handlers that a logger of the caller has."""

    def __init__(self, token: bytes, level: int) -> None:
        super().__init__(level)
        self._token = token

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, once."""
        if record.__dict__.setdefault(_SENT, self) is not self:
            return
        try:
            _send(self._token, _fields_of(record))
        except Exception:
            self.handleError(record)


_DERIVED = (_SENT, "filename", "module", "relativeCreated", "message", "asctime")
_ATOMS = frozenset((int, str, float, bool, type(None)))
_SHORT = 1000  # characters; a longer text is only sent as part of the message


def _stays(value: Any) -> bool:
    """Return whether a value is the same when it has travelled."""
    kind = type(value)
    if kind is str:
        return len(value) < _SHORT
    return kind in _ATOMS and (kind is not int or -(1 << 63) <= value < 1 << 64)


def _fields_of(record: logging.LogRecord) -> records.Fields:
    """Return a record as plain data: its text where the arguments are something else."""
    fields = record.__dict__.copy()
    for name in _DERIVED:
        fields.pop(name, None)
    args, raised = fields.pop("args", None), fields.pop("exc_info", None)
    named = args if isinstance(args, dict) else None
    values = () if not args else named.values() if named is not None else args
    is_plain = type(record.msg) is str and all(map(_stays, values))
    fields["msg"] = record.msg if is_plain else record.getMessage()
    fields["args"] = args if is_plain and args else None
    if raised and raised[0] and not record.exc_text:
        fields["exc_text"] = "".join(traceback.format_exception(*raised)).rstrip("\n")
    return fields


class Logs:
    """The loggers of this process, as the caller has them."""

    def __init__(self) -> None:
        self._changed: set[str] = set()

    def apply(self, wanted: Logging, token: bytes) -> None:
        """Make levels those of the caller, and handlers what sends there.

        Applied before the caller's modules are imported, so that their `basicConfig` does nothing
        as it would there, and after, since what they add the caller has, too.
        """
        if self._changed:  # what the last function has configured is not there any more
            logging.root.handlers.clear()
        if logging.root.manager.disable != wanted.disabled:
            logging.disable(wanted.disabled)
        names = {one.name for one in wanted.loggers}
        for name in self._changed - names:
            _set(logging.getLogger(name), logging.NOTSET, propagate=True, disabled=False)
            _put_forwarder(logging.getLogger(name), None)
        for one in wanted.loggers:
            logger = logging.getLogger(one.name)
            _set(logger, one.level, propagate=one.propagate, disabled=one.disabled)
            _put_forwarder(logger, None if one.handled is None else Forwarder(token, one.handled))
        self._changed = names


def _set(logger: logging.Logger, level: int, *, propagate: bool, disabled: bool) -> None:
    if logger.level != level:
        logger.setLevel(level)
    logger.propagate, logger.disabled = propagate, disabled


def _put_forwarder(logger: logging.Logger, forwarder: Forwarder | None) -> None:
    """Let this be the only handler; without one, those stay that are not ours."""
    if forwarder is not None:
        logger.handlers[:] = [forwarder]
    else:
        logger.handlers[:] = [one for one in logger.handlers if not isinstance(one, Forwarder)]


# --- warnings ---


def show_at_caller(token: bytes) -> None:
    """Have warnings shown by the caller: once, however many processes give them."""

    def show(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if file is not None:
            _show_here(message, category, filename, lineno, file, line)
            return
        fields = {
            "warning": message,
            "categories": [(one.__module__, one.__qualname__) for one in category.__mro__],
            "filename": filename,
            "lineno": lineno,
        }
        try:
            _send(token, fields)
        except Exception:  # of its __str__
            _show_here(message, category, filename, lineno)

    warnings.showwarning = show
