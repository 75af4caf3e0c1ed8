"""The arguments of one call, positional and by keyword, as an input."""

from collections.abc import Callable
from typing import Any


class call:
    """The arguments of one call: `remote_parallel_map(f, [burla.call(1, key=2), ...])`.

    Whatever `unpack` says, such an input becomes the call `f(1, key=2)`.
    """

    __slots__ = ("args", "kwargs")

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        """Take the arguments as the function is to get them."""
        self.args, self.kwargs = args, kwargs

    def __reduce__(self) -> Any:
        return _load, ((self.args, self.kwargs) if self.kwargs else (self.args,))

    def __eq__(self, other: object) -> bool:
        if type(other) is not call:
            return NotImplemented
        return self.args == other.args and self.kwargs == other.kwargs

    __hash__ = None  # type: ignore[assignment]  # its arguments may change

    def __repr__(self) -> str:
        keywords = (f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"call({', '.join([*map(repr, self.args), *keywords])})"


class _Met:
    """Whether this process has been sent such an input: until then none is looked for."""

    any = False


def _load(args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> call:
    _Met.any = True
    return call(*args, **(kwargs or {}))


def met() -> bool:
    """Return whether this process has unpickled a `call`."""
    return _Met.any


def bind_any(function: Callable[..., Any], plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what is called with each input, of which some may be a `call`.

    Args:
        function: what is called.
        plain: what is called with the other inputs.
    """

    def call_any(argument: Any) -> Any:
        if type(argument) is call:
            return function(*argument.args, **argument.kwargs)
        return plain(argument)

    return call_any


class Guarded:
    """A function, and the exceptions after which it is to be called again."""

    __slots__ = ("function", "kinds")

    def __init__(
        self, function: Callable[..., Any], kinds: tuple[type[BaseException], ...]
    ) -> None:
        """Take them together, so that they are pickled as one: classes stay what they are."""
        self.function, self.kinds = function, kinds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do as the function does."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> Any:
        return Guarded, (self.function, self.kinds)


def unguard(
    function: Callable[..., Any],
) -> tuple[Callable[..., Any], tuple[type[BaseException], ...]]:
    """Return a function and the exceptions after which it is called again; mostly none."""
    if type(function) is Guarded:
        return function.function, function.kinds
    return function, ()
