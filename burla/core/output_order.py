"""The output of one lease, put in order. Pure.

Output comes by a channel that may lose some, outcomes by another. What was announced or lies behind
a gap is missing; it is asked for after a moment, and given up when nobody can send it any more.
"""

from msgspec import Struct, field

from burla.protocol.messages import LEASE_OUTPUT_WINDOW

GAP_S = 0.05  # output may be this much later than the outcomes that announce it
REPLAY_AGAIN_S = 1.0  # the request or its answer may be lost with a connection
REPLAYS_MAX = 90  # then output is given up: longer than a silent node or scheduler is waited for
EARLY_BYTES_MAX = 4 * LEASE_OUTPUT_WINDOW  # kept behind a gap; what is beyond comes by replay


class Piece(Struct, frozen=True):
    """Chunks `number`, `number` + 1, ... of a lease's output."""

    number: int
    streams: tuple[int, ...]  # messages.Stream, per chunk
    chunks: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """Return the number of the last chunk."""
        return self.number + len(self.chunks) - 1

    @property
    def bytes(self) -> int:
        """Return the size of all chunks."""
        return sum(map(len, self.chunks))

    def since(self, number: int) -> "Piece":
        """Return the chunks from `number` on."""
        seen = max(0, number - self.number)
        return self if not seen else Piece(number, self.streams[seen:], self.chunks[seen:])


class OutputOrder(Struct):
    """Hands each chunk out once, in order."""

    due: int = 1  # the next chunk to hand out
    look_s: float | None = None  # when to do something about what is missing; None: nothing is
    _announced: int = 0  # chunks that must be there
    _early: dict[int, Piece] = field(default_factory=dict)  # behind a gap, by number
    _early_bytes: int = 0
    _replays: int = 0  # asked for since there was progress
    _lost: bool = False  # nobody can send it again

    def lacking(self) -> bool:
        """Return whether something is missing."""
        return self._announced >= self.due or bool(self._early)

    def take(self, piece: Piece, now_s: float) -> list[Piece]:
        """Take what arrived; return what is to be shown now."""
        if piece.number > self.due:
            if piece.number not in self._early:
                if self._early_bytes + piece.bytes <= EARLY_BYTES_MAX:
                    self._keep(piece)
                self._look(now_s)
            return []
        if piece.last < self.due:
            return []
        ready = [piece.since(self.due)]
        self.due = piece.last + 1
        ready += self._take_early()
        self.look_s, self._replays = None, 0
        self._look(now_s)
        return ready

    def announce(self, chunks: int, now_s: float) -> None:
        """Note that chunks up to this number were sent."""
        if chunks > self._announced:
            self._announced = chunks
            self._look(now_s)

    def lose(self, now_s: float) -> None:
        """Note that nothing can be sent again; what is under way has a moment to arrive."""
        self._lost, self.look_s = True, None
        self._look(now_s)

    def ask(self, now_s: float) -> bool:
        """Return whether to ask for what is missing, now that it is time; else `give_up`."""
        if self._lost or self._replays >= REPLAYS_MAX:
            return False
        self._replays += 1
        self.look_s = now_s + REPLAY_AGAIN_S
        return True

    def give_up(self) -> list[Piece]:
        """Return what there is, past all gaps."""
        ready: list[Piece] = []
        while self._early:
            self.due = max(self.due, min(self._early))
            ready += self._take_early()
        self.due = max(self.due, self._announced + 1)
        self.look_s, self._replays = None, 0
        return ready

    def _keep(self, piece: Piece) -> None:
        self._early[piece.number] = piece
        self._early_bytes += piece.bytes

    def _take_early(self) -> list[Piece]:
        ready = []
        while self._early and (number := min(self._early)) <= self.due:
            piece = self._early.pop(number)
            self._early_bytes -= piece.bytes
            if piece.last >= self.due:
                ready.append(piece.since(self.due))
                self.due = piece.last + 1
        return ready

    def _look(self, now_s: float) -> None:
        if not self.lacking():
            self.look_s = None
        elif self.look_s is None:
            self.look_s = now_s + GAP_S
