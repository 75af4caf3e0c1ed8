"""What there was of a job that ended early; nothing of it costs anything until it is looked at."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from burla.core.effects import Part
from burla.protocol.ranges import Range
from burla.values.tracebacks import PARTIAL

Load = Callable[[Part, str], list[Any]]  # what a part holds, and the node it is from -> its values


class Partial(Mapping[int, Any]):
    """The results that were there when a job ended early: index of the input -> result.

    With `return_exceptions=True` exceptions of calls are among them.
    """

    def __init__(
        self,
        load: Load,
        waiting: Iterable[tuple[Part, str]],
        results: list[Any] | None = None,
        stored: Iterable[tuple[Range, ...]] = (),
    ) -> None:
        """Take what there is.

        Args:
            load: gives the values of a part that came and was not opened, or raises.
            waiting: such parts, each with the name of its node.
            results: by index, those that were opened.
            stored: which of them.
        """
        self._load, self._waiting = load, list(waiting)
        self._results, self._stored = results or [], list(stored)
        self._found: dict[int, Any] | None = None

    def _all(self) -> dict[int, Any]:
        if self._found is None:
            found: dict[int, Any] = {}
            for lo, hi in chain.from_iterable(self._stored):
                found.update(zip(range(lo, hi), self._results[lo:hi], strict=True))
            for part, node in self._waiting:
                with suppress(Exception):  # what cannot be opened is no result
                    values = iter(self._load(part, node))
                    for lo, hi in part.fresh:
                        found.update(zip(range(lo, hi), values, strict=False))
            self._found = dict(sorted(found.items()))
            self._results, self._stored, self._waiting = [], [], []
        return self._found

    def __getitem__(self, index: int) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"<{len(self)} results by the index of their input>"

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def attach(error: BaseException, partial: Partial) -> None:
    """Let an error carry what there was, whatever its class makes of attributes."""
    with suppress(Exception):
        BaseException.__setattr__(error, PARTIAL, partial)
