"""A job that is detached while it runs, on its way into the store of the scheduler. Pure.

It is a stored job whose first inputs, and all outcomes that there are, come from the attached one.
That they are on the disk must be known before the last inputs are: then it is whole. If the
connection is lost meanwhile it is only asked whether it was whole; else the attached job goes on.
"""

from collections import deque
from typing import Any

from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.detach_messages import BEFORE_WINDOW, BeforeStored

from .commands import AddBefore, EndInputs, ForSession
from .effects import Effect, Frames, Send
from .gathering import Room, plain_room
from .session import AboutJob, Contents, Session

TOO_OLD = (
    "the scheduler of the cluster runs an older burla, or has no store, and cannot take over a job"
    " that runs: an administrator upgrades it with `burla up`"
)
ENDED = "it has just ended"


class Adopting(Session):
    """The stored job that an attached one becomes."""

    def __init__(
        self, spec: m.OpenJob, function: Frames, blobs: Contents, room: Room = plain_room
    ) -> None:
        """Start a job that has nothing yet."""
        super().__init__(spec, function, True, room, blobs)
        self._waits: deque[AddBefore] = deque()  # outcomes that are not sent
        self._unsafe: deque[tuple[int, int]] = deque()  # that are: number, and bytes
        self._bytes = 0  # of those
        self._has_end = False  # all inputs are here

    def connect(self, now_s: float, bytes_max: int = 0, **known: Any) -> list[Effect]:
        """Begin; on a second connection ask whether all of it had come."""
        if not self.opened:
            return super().connect(now_s, bytes_max, **known) + self._go_on()
        self.disconnect()  # nothing more of it is said
        return [Send(replace(self._spec, resumed=True), self._function)]

    def refuse(self, why: str) -> list[Effect]:
        """Fail before anything is sent."""
        self._fail(m.JobFailed(self.id, "", why))
        return self._settle()

    def adopt(self, of: Session | None) -> list[Effect]:
        """Take the inputs of the attached job that have no outcome; None: it is over."""
        if of is None:
            return self.refuse(ENDED)
        for batch in of.batches.open():
            self.batches.skip(batch.message.start)
            mine = self.batches.add(batch.leaves(), batch.size)
            if not self._send_if_taken(*self.batches.to_send(mine)):
                return self._settle()
        self.batches.skip(of.batches.end)
        return self._settle()

    def handle(self, command: ForSession, now_s: float) -> list[Effect]:
        """Do what the calling thread asks; the end of the inputs waits for the outcomes."""
        if self.over:
            return []
        if isinstance(command, AddBefore):
            self._waits.append(command)
        elif isinstance(command, EndInputs):
            self._has_end = True
        else:
            return super().handle(command, now_s)
        return self._go_on()

    def receive(self, message: AboutJob, payload: list[bytes], now_s: float) -> list[Effect]:
        """Take what the scheduler says of it."""
        if not isinstance(message, BeforeStored):
            return super().receive(message, payload, now_s)
        if self.over:
            return []
        while self._unsafe and self._unsafe[0][0] <= message.seq:
            self._bytes -= self._unsafe.popleft()[1]
        return self._go_on()

    def _go_on(self) -> list[Effect]:
        """Send outcomes as far as the window has room, and after them that there is all."""
        while self._waits and self._connected and (not self._bytes or self._bytes < BEFORE_WINDOW):
            one = self._waits.popleft()
            size = sum(map(len, one.payload))
            self._unsafe.append((one.message.seq, size))
            self._bytes += size
            self._send(one.message, one.payload)
        if self._has_end and self.batches.total is None and not self._waits and not self._unsafe:
            return super().handle(EndInputs(self.id), 0.0)
        return self._settle()
