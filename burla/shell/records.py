"""Log records and warnings of calls, handed to the caller's `logging` and `warnings`.

They come as plain data, see values/records.py. No module is imported for what they name.
"""

import logging
import os
import sys
import warnings
from typing import Any

from burla.values.records import Fields

FILES_MAX = 1024  # of which is remembered what was warned of

_OWN = frozenset(dir(logging.LogRecord))  # methods
_registries: dict[str, dict[Any, Any]] = {}  # what was warned of already, by file


def hand_over(fields: Fields) -> None:
    """Do with a record or warning what would be done with it, had it arisen here.

    Raises:
        Exception: what a filter or handler of the caller raised.
    """
    if "warning" in fields:
        _warn(fields)
        return
    fields = {name: value for name, value in fields.items() if name not in _OWN}
    args = fields.get("args")
    fields["args"] = tuple(args) if isinstance(args, list) else args
    record = logging.makeLogRecord(fields)  # without exc_info: what it says is in exc_text
    record.filename = os.path.basename(record.pathname)
    record.module = os.path.splitext(record.filename)[0]
    logging.getLogger(record.name).handle(record)


def _warn(fields: Fields) -> None:
    filename, line = str(fields["filename"]), int(fields["lineno"])
    registry = _registries.setdefault(filename, {})
    if len(_registries) > FILES_MAX:
        del _registries[next(iter(_registries))]
    text = str(fields["warning"])
    for category in _categories(fields["categories"]):
        try:
            message = category(text)
        except Exception:  # it wants other arguments
            continue
        try:
            warnings.warn_explicit(message, category, filename, line, registry=registry)
        except Warning:  # by a filter that was not there when the call began
            warnings.showwarning(message, category, filename, line)
        return


def _categories(places: list[tuple[str, str]]) -> list[type[Warning]]:
    """Return the classes of these modules and names that there are, the closest first."""
    found: list[type[Warning]] = []
    for module, name in places:
        there: object = sys.modules.get(module)
        for part in name.split("."):
            there = getattr(there, part, None)
        if isinstance(there, type) and issubclass(there, Warning):
            found.append(there)
    return [*found, UserWarning]
