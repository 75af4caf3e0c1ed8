"""Output of a job as lines that may be shown: joined, decoded, without what moves a cursor. Pure.

Log records of calls, which travel in their output, become text. Chunks of one place follow each
other, so the beginning of a line waits for its rest.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from burla.protocol.printable import printable
from burla.values.records import readable

from .job_output import Printed

LINE_CHARS_MAX = 1 << 20  # a longer one is shown in parts
_COLOR = re.compile("(\x1b\\[[0-9;]*m)")
_OTHER = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")
OFF = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or the beginning of one that has not ended when all is over."""

    first: Printed  # where it begins
    inputs: tuple[int, int] | None  # it is of one of [lo, hi); None: not known
    text: str
    has_ended: bool = True
    is_over_last: bool = False  # it is written over what was shown of the line before


class Lines:
    """Joins lines, of each lease and stream for itself."""

    def __init__(self) -> None:
        """Start with none."""
        self._decoders: dict[tuple[bytes, str], codecs.IncrementalDecoder] = {}
        self._begun: dict[tuple[bytes, str], tuple[Printed, tuple[int, int] | None, str]] = {}
        self._returned: set[tuple[bytes, str]] = set()  # what is shown of them is written over

    def feed(self, printed: Printed) -> Iterator[Line]:
        """Yield the lines that end in a chunk."""
        key = printed.lease, printed.stream
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(printed.data)
        first, inputs, begun = self._begun.pop(key, (printed, printed.inputs, ""))
        if begun:
            text, inputs = begun + text, _both(inputs, printed.inputs)
        *lines, rest = text.split("\n")
        for line in lines:
            yield from _line(first, inputs, line, returned=self._has_returned(key))
            first, inputs = printed, printed.inputs
        if len(rest) >= LINE_CHARS_MAX:
            returned = self._has_returned(key)
            yield from _line(first, inputs, rest, has_ended=False, returned=returned)
        elif rest:
            self._begun[key] = first, inputs, rest

    def rest(self) -> Iterator[Line]:
        """Yield the lines that have not ended; what comes of them goes on behind that."""
        begun, self._begun = self._begun, {}
        for key, (first, inputs, text) in begun.items():
            returned = self._has_returned(key)
            if text.endswith("\r"):
                self._returned.add(key)
            yield from _line(first, inputs, text, has_ended=False, returned=returned)

    def begin(self, otherwise: int) -> int:
        """Return the place of the first chunk of which something has not been yielded yet."""
        return min((first.place for first, _, _ in self._begun.values()), default=otherwise)

    def _has_returned(self, key: tuple[bytes, str]) -> bool:
        """Return whether the cursor stood before what was yielded of a line; from now on not."""
        if key not in self._returned:
            return False
        self._returned.discard(key)
        return True


def _line(
    first: Printed,
    inputs: tuple[int, int] | None,
    text: str,
    *,
    has_ended: bool = True,
    returned: bool = False,
) -> Iterator[Line]:
    shown = _shown(text)
    is_over_last = bool(shown) and (returned or "\r" in text.removesuffix("\r"))
    for each in readable(shown).split("\n") if "\x1f" in text else [shown]:
        yield Line(first, inputs, each, has_ended, is_over_last)


def _both(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _shown(text: str) -> str:
    """Return what a terminal shows of a line at last: what was written over is gone."""
    text = text.removesuffix("\r")
    return text.rpartition("\r")[2]


def is_of(inputs: tuple[int, int] | None, wanted: int) -> bool:
    """Return whether a line may be of an input."""
    return inputs is not None and inputs[0] <= wanted < inputs[1]


def which(inputs: tuple[int, int] | None) -> str:
    """Return of which input a line is, in few characters."""
    if inputs is None:
        return "?"
    return str(inputs[0]) if inputs[1] == inputs[0] + 1 else f"{inputs[0]}-{inputs[1] - 1}"


def safe(text: str, *, color: bool) -> str:
    """Return a line without what could do more to a terminal than color it."""
    if text.isprintable():
        return text
    parts = _COLOR.split(_plain(text))
    if not color:
        return "".join(printable(part, lines=True) for part in parts[::2])
    shown = "".join(
        part if number % 2 else printable(part, lines=True) for number, part in enumerate(parts)
    )
    return shown + OFF if len(parts) > 1 else shown


def _plain(text: str) -> str:
    """Return a text without sequences that are no colors."""
    return _OTHER.sub(lambda found: found[0] if _COLOR.fullmatch(found[0]) else "", text)
