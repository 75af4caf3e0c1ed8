"""The results of many calls of one function, as they come, for whoever iterates."""

import threading
import time
from collections import deque
from typing import Any


class Failed:
    """Stands for the result of a call that failed."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        """Take why."""
        self.error = error


class CancelledCall(Exception):
    """A call was not sent, as nobody wants its result."""


class Results:
    """Takes outcomes in any order in one thread, gives them in theirs, or as they come, in another.

    A sink whose tokens are the indices of calls.
    """

    def __init__(self, *, is_ordered: bool = True) -> None:
        """Begin with nothing."""
        self.wanted = True  # False: calls that are not sent yet need not be
        self._is_ordered = is_ordered
        self._done: dict[int, Any] = {}  # results by index, and `Failed`
        self._came: deque[int] = deque()  # their indices, in order of completion
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._waits = False

    def begin(self, token: int) -> bool:
        """Return whether a call is wanted still."""
        if not self.wanted:
            self.cancel(token)
        return self.wanted

    def succeed(self, token: int, value: Any) -> None:
        """Take a result."""
        with self._lock:
            self._done[token] = value
            if not self._is_ordered:
                self._came.append(token)
            if self._waits:
                self._more.notify_all()

    def fail(self, token: int, error: BaseException) -> None:
        """Take an error."""
        self.succeed(token, Failed(error))

    def cancel(self, token: int) -> None:
        """Take note that a call is not made."""
        self.succeed(token, Failed(CancelledCall()))

    def get(self, index: int, timeout_s: float | None = None) -> Any:
        """Return outcome `index`, or the next that came; of a call that failed, a `Failed`.

        Raises:
            TimeoutError: it does not come in time.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while not (index in self._done if self._is_ordered else self._came):
                left_s = None if until_s is None else until_s - time.monotonic()
                self._waits = True
                if (left_s is not None and left_s <= 0) or not self._more.wait(left_s):
                    raise TimeoutError
            self._waits = False
            return self._done.pop(index if self._is_ordered else self._came.popleft())

    def take(self, index: int, timeout_s: float | None = None) -> Any:
        """Return outcome `index`, or the next that came; an error is raised.

        Raises:
            TimeoutError: it does not come in time.
            BaseException: the call failed.
        """
        value = self.get(index, timeout_s)
        if type(value) is Failed:
            try:
                raise value.error
            finally:
                del value  # or the error and this frame keep each other
        return value

    def drop(self) -> None:
        """Want no more."""
        self.wanted = False
