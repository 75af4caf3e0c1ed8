"""A function that fails in several ways, in a module of its own that travels with it."""

from typing import Any


class Frozen(Exception):
    """Refuses attributes."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        object.__setattr__(self, "value", value)
        super().__init__(value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


def work(x: int, *, factor: int = 2) -> Any:
    """Return a number or a list, or raise."""
    if x % 7 == 3:
        raise ValueError(x)
    if x % 11 == 5:
        raise Frozen(x)
    return [x] if x % 5 == 4 else x * factor
