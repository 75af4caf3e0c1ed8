"""What of the caller's is loaded in a worker, function by function: globals, classes, modules.

A job of one function has one set of them. Where functions of different times come to one process,
each finds its globals as they were when it was sent, so each has a scope of its own. One is in
force at a time; to turn to another costs some microseconds.
"""

import sys
from types import ModuleType
from typing import Any

from . import cloudpickle_parts as parts, pickling


class Scope:
    """What was loaded with one function, while another one is in force."""

    __slots__ = ("classes", "modules", "named")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.modules: dict[str, ModuleType] = {}
        self.classes: dict[type, str] = {}
        self.named: dict[int, tuple[Any, str, str]] = {}


class Scopes:
    """Which scope is in force in this process."""

    def __init__(self) -> None:
        """Take what is loaded now as the first scope."""
        self._now = Scope()

    def turn_to(self, scope: Scope) -> None:
        """Have what is loaded from now on, and what is named, belong to `scope`."""
        if scope is self._now:
            return
        before, self._now = self._now, scope
        before.modules = dict(pickling._job_modules)
        before.classes = dict(pickling._callers)
        before.named = dict(pickling._named)
        pickling.leave_job()
        is_new = not scope.modules
        pickling._job_modules.update(scope.modules)
        pickling._callers.update(scope.classes)
        pickling._named.update(scope.named)
        for cls, class_id in scope.classes.items():
            parts.class_tracker_by_id[class_id] = cls
        if pickling._main_attributes is not None:
            sys.modules.update(scope.modules)
            if is_new:
                pickling.make_main()
