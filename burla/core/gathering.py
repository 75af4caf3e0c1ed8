"""A big outcome that comes in fragments: put together where it is unpickled from. Pure."""

from collections.abc import Callable, Sequence

from burla.protocol.messages import Fragment

Room = Callable[[int], memoryview | None]  # memory of so many bytes; None: there is none


def plain_room(size: int) -> memoryview:
    """Return memory as it comes."""
    return memoryview(bytearray(size))


class Gathering:
    """One outcome, from its first fragment to its last. They come in order."""

    def __init__(self, first: Fragment, room: memoryview | None) -> None:
        """Gather in `room`; None: nowhere, what comes is dropped."""
        self.index, self.size = first.index, first.size
        self.due = 0  # where the next fragment begins
        self._room = room

    def fits(self, fragment: Fragment, size: int) -> bool:
        """Return whether a fragment with so many bytes is the next one of this outcome."""
        is_of_this = (fragment.index, fragment.size) == (self.index, self.size)
        return is_of_this and fragment.at == self.due and size <= self.size - self.due

    def add(self, payload: Sequence[bytes]) -> None:
        """Take the next fragment."""
        for frame in payload:
            end = self.due + len(frame)
            if self._room is not None:
                self._room[self.due : end] = frame
            self.due = end

    def is_whole(self) -> bool:
        """Return whether all of it is here."""
        return self.due == self.size

    def frames(self) -> list[bytes]:
        """Return the whole as one frame; an empty one if there was no room for it."""
        return [b"" if self._room is None else self._room]  # type: ignore[list-item]  # a buffer
