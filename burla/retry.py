"""When a call that fails is called again."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

from burla.protocol.fields import NUMBER_MAX, WAIT_S_MAX
from burla.values.payloads import short_repr


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a call that fails is called again: `retries=burla.Retry(3, ...)`.

    Attributes:
        times: how often at most; the last error is the outcome.
        on: which exceptions that is done for, a class or several. What `CallFailed` stands for
            counts as that: a call that is killed for `timeout` as `CallTimeout`.
        backoff_s: seconds before the first time, twice as many before each further one, an hour
            at most. Meanwhile the slot runs other calls.
        jitter: up to this part of each wait is left out by chance, lest many come at once.
        other_node: not on the node where it failed, if another can be had within ten seconds.
    """

    times: int
    on: type[BaseException] | tuple[type[BaseException], ...] = Exception
    backoff_s: float = 0.0
    jitter: float = 0.0
    other_node: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            TypeError: something is of a wrong kind; the text names it.
            ValueError: something has an impossible value.
        """
        times: Any = self.times
        if isinstance(times, bool) or not hasattr(type(times), "__index__"):
            raise TypeError(f"retries must be a whole number of times, not {short_repr(times)}")
        if not 0 <= times.__index__() <= NUMBER_MAX:
            raise ValueError(f"retries must be 0 or more, not {short_repr(times)}")
        kinds: tuple[Any, ...] = self.on if isinstance(self.on, tuple) else (self.on,)
        for kind in kinds or (None,):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"on must be exception classes, not {short_repr(self.on)}")
        for name, most in (("backoff_s", WAIT_S_MAX), ("jitter", 1.0)):
            value: Any = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number:
                raise TypeError(f"{name} must be a number, not {short_repr(value)}")
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be 0 to {most:g}, not {short_repr(value)}")
        if not isinstance(self.other_node, bool):
            raise TypeError(f"other_node must be True or False, not {short_repr(self.other_node)}")

    @property
    def kinds(self) -> tuple[type[BaseException], ...]:
        """Return the classes of exceptions that it is for."""
        return self.on if isinstance(self.on, tuple) else (self.on,)

    def covers(self, kind: type[BaseException]) -> bool:
        """Return whether exceptions of a class are among those that it is for."""
        return issubclass(kind, self.kinds)


def read_retries(retries: object) -> Retry | None:
    """Return what was asked for; None: nothing.

    Raises:
        TypeError: it is neither a number nor a `Retry`.
        ValueError: it is an impossible number.
    """
    if retries is None:
        return None
    if isinstance(retries, Retry):
        found = retries
    elif isinstance(retries, bool) or not hasattr(type(retries), "__index__"):
        raise TypeError(
            f"retries must be a whole number of times or a burla.Retry, not {short_repr(retries)}"
        )
    else:
        found = Retry(retries)  # type: ignore[arg-type]  # it has `__index__`
    return found if found.times.__index__() else None
