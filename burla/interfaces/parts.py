"""Big buffers that several calls have: put down once, where the workers of this machine map them.

The first time that a buffer comes it goes with its call. When it comes again it is put down in
memory under its content, and that call and all later ones only say where.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from burla.values.held_parts import HeldPart, HeldParts, held_in, key_of
from burla.values.many import Packed, Reference, Shared
from burla.values.parts import PART_BYTES_MIN, Part
from burla.values.shared_memory import refer_to_part

from .codes import Call

CALLS_MAX = 4  # whose buffers may go with the job
BUFFERS_MAX = 16  # of them
SHARED_BYTES_MIN = 1 << 20  # so big each
SEEN_MAX = 64  # buffers that came once
BYTES_MAX = 1 << 30  # put down for one job


class SharedParts:
    """The buffers of one job."""

    def __init__(self, directory: str | None, with_job: Sequence[memoryview] = ()) -> None:
        """Put them into `directory`, in memory; None: they go with each call.

        Args:
            directory: which workers share.
            with_job: those that went with the function of the job: calls say which of them.
        """
        self._with_job = {key_of(flat(one)): Shared(at) for at, one in enumerate(with_job)}
        self._held: HeldParts | None = None if directory is None else held_in(directory)
        self._seen: OrderedDict[bytes, None] = OrderedDict()  # by content
        self._parts: dict[str, HeldPart] = {}  # by where they lie
        self._bytes = 0

    def refer(self, given: Any) -> Any:
        """Return an input in which buffers that came before are references."""
        if type(given) is not Packed or (self._held is None and not self._with_job):
            return given
        buffers = [self._refer_to(one) for one in given.buffers]
        return Packed(given.code, given.code_buffers, given.data, given.definitions, buffers)

    def _refer_to(self, buffer: memoryview) -> Any:
        if buffer.nbytes < PART_BYTES_MIN:
            return buffer
        key = key_of(flat(buffer))
        if key in self._with_job:
            return self._with_job[key]
        if not self._was_seen(key) or self._held is None:
            return buffer
        try:
            part = self._held.hold(Part(buffer, False))
        except OSError:  # there is no room
            return buffer
        if part.path in self._parts:
            self._held.release([part])  # one is enough for the job
        elif self._bytes + part.size > BYTES_MAX:
            self._held.release([part])
            return buffer
        else:
            self._parts[part.path] = part
            self._bytes += part.size
        return Reference(refer_to_part(part.path, part.size, is_bytes=False))

    def _was_seen(self, key: bytes) -> bool:
        was = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return was

    def release(self) -> None:
        """Let go of them: the job is over."""
        if self._held is not None:
            self._held.release([*self._parts.values()])
        self._parts.clear()


def flat(buffer: memoryview) -> memoryview:
    """Return the bytes of a buffer."""
    return buffer.cast("B") if buffer.format != "B" or buffer.ndim != 1 else buffer


def first_buffers(queue: Iterable[tuple[Any, Any, Call]]) -> list[memoryview]:
    """Return the big buffers of the first calls that wait, each once."""
    found: dict[bytes, memoryview] = {}
    for _, _, call in islice(queue, CALLS_MAX):
        if type(call.input) is Packed:
            for one in call.input.buffers:
                if type(one) is memoryview and one.nbytes >= SHARED_BYTES_MIN:
                    found.setdefault(key_of(flat(one)), one)
    return [*found.values()][:BUFFERS_MAX]
