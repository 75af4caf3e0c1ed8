"""The big inputs of one lease: asked for piece by piece, in order, before a worker may have them.

Each is a file in memory that is filled as its pieces come; what lies in it waits until it is whole.
Then a worker maps it, so that the node has it once. It is let go when its inputs are done here or
were given back: whoever needs it again asks again. Pure.
"""

from collections.abc import Callable, Iterable, Sequence

from burla.limits import VALUE_BYTES_MAX
from burla.protocol.fields import BLOB_PIECE_BYTES
from burla.protocol.input_messages import INPUT_WINDOW
from burla.protocol.messages import InputPiece, InputWanted, LeaseRefused, Span

from .custody import Custody
from .effects import DropBlob, Effect, FinishBlob, KeepBlob, Send, StoredLeaf

STALLED_S = 20.0  # without a piece for this long what was asked for is lost; a slow line takes 10
PAUSE_S = 1.0  # until what could not be kept just now is asked for once more
TRIES_MAX = 30  # in each of which it could not be kept
ASKED_MIN = 2 << 20  # bytes of one question, or all that is left of a leaf


Found = Callable[[Iterable[Span], float], None]


class _Leaf:
    """One leaf on its way, or here."""

    def __init__(self, leaf: StoredLeaf) -> None:
        """Have nothing of it."""
        self.batch, self.lo, self.hi = leaf.batch, leaf.lo, leaf.hi
        self.number, self.size = leaf.number, leaf.size
        self.have = 0  # bytes from its beginning
        self.asked = 0  # likewise, that will be there when all has come that was asked for
        self.heard_s = 0.0  # when something of it came last, or was asked for first
        self.tries = 0  # in which it could not be kept
        self.again_s = 0.0  # it is not asked for before

    def is_whole(self) -> bool:
        """Return whether all of it is here."""
        return self.have == self.size


class BigInputs:
    """Those of one lease that are open."""

    def __init__(
        self,
        lease: bytes,
        job: bytes,
        custody: Custody,
        found: Found,
        effects: list[Effect],
        bytes_max: int = VALUE_BYTES_MAX,
    ) -> None:
        """Have none.

        Args:
            lease: of the node.
            job: that it serves.
            custody: where the inputs wait.
            found: is told of those that wait no longer.
            effects: where all that is asked for is put.
            bytes_max: what one leaf may have.
        """
        self._lease, self._job, self._bytes_max = lease, job, bytes_max
        self._custody, self._found, self._effects = custody, found, effects
        # By number, which is the order in which they came. For all to see: whether there are any
        # is asked at each event.
        self.leaves: dict[int, _Leaf] = {}

    def hold_back(self, spans: Iterable[Span], now_s: float) -> None:
        """Let what has just been assigned, and is not here, wait until it is."""
        custody = self._custody
        for span in spans:
            for leaf in custody.store.big_leaves(span.lo, span.hi):
                waiting = custody.queue.ranges.common(leaf.lo, leaf.hi)
                known = self.leaves.get(leaf.number)
                if not waiting or (known is not None and known.is_whole()):
                    continue
                for lo, hi in waiting:
                    custody.queue.expect(lo, hi)
                if leaf.size > self._bytes_max:
                    self._refuse(leaf.size, f"it has {self._bytes_max:,} bytes")
                elif known is None:
                    self.leaves[leaf.number] = _Leaf(leaf)
        self._ask(now_s)

    def take(self, said: InputPiece, payload: Sequence[bytes], now_s: float) -> None:
        """Take a piece, if it is the next one."""
        leaf = next((e for e in self.leaves.values() if e.lo == said.leaf), None)
        size = sum(map(len, payload))
        if leaf is None or said.start != leaf.have or not 0 < size <= BLOB_PIECE_BYTES:
            return
        if leaf.have + size > leaf.asked:
            return
        self._effects.append(KeepBlob(leaf.number, leaf.have, payload, self._lease, leaf.size))
        leaf.have += size
        leaf.heard_s = now_s
        if leaf.is_whole():
            self._effects.append(FinishBlob(leaf.number))
            self._say(leaf, leaf.have, leaf.have)
            for lo, hi in self._custody.queue.found(leaf.lo, leaf.hi):
                self._found(self._custody.store.spans(lo, hi), now_s)
        self._ask(now_s)

    def settle(self, now_s: float) -> None:
        """Let go of what is not open here any more; ask again for what does not come."""
        for leaf in list(self.leaves.values()):
            if not self._custody.open.common(leaf.lo, leaf.hi):
                self._drop(leaf)
            elif leaf.asked > leaf.have and now_s >= leaf.heard_s + STALLED_S:
                leaf.heard_s = now_s
                self._say(leaf, leaf.have, leaf.asked)
        self._ask(now_s)

    def ask_again(self, now_s: float) -> None:
        """Ask for all that is missing: what was asked or sent is lost, perhaps."""
        for leaf in self.leaves.values():
            leaf.asked = leaf.have
        self._ask(now_s)

    def failed(self, number: int, why: str, now_s: float, *, may_pass: bool = False) -> bool:
        """Take note that a leaf cannot be kept; return whether it is one of these.

        What may pass, as a lack of descriptors, is waited for, unless workers have it already.
        """
        leaf = self.leaves.get(number)
        if leaf is None:
            return False
        if may_pass and leaf.tries < TRIES_MAX and not leaf.is_whole():
            leaf.tries += 1
            leaf.again_s = now_s + PAUSE_S
            leaf.have = leaf.asked = 0
            self._effects.append(DropBlob(number))
        else:
            self._refuse(leaf.size, why)
            self._drop(leaf)
        return True

    def _refuse(self, size: int, why: str) -> None:
        text = f"an input of {size:,} bytes cannot be kept in its memory: {why}"
        self._effects.append(Send(LeaseRefused(self._lease, text)))

    def numbers_of(self, leaves: Sequence[StoredLeaf]) -> tuple[int, ...]:
        """Return what the leaves of a span have in memory."""
        return tuple(leaf.number for leaf in leaves if leaf.size)

    def snapshot(self) -> dict[str, object]:
        """Return how far they are, for people."""
        return {
            f"{leaf.lo}": {"bytes": leaf.size, "here": leaf.have, "asked": leaf.asked}
            for leaf in self.leaves.values()
        }

    def check(self) -> None:
        """Assert that what waits for a leaf waits for one that is on its way."""
        for lo, hi in self._custody.queue.expected:
            for leaf in self._custody.store.big_leaves(lo, hi):
                one = self.leaves.get(leaf.number)  # it may be refused
                assert one is None or not one.is_whole(), leaf
        for one in self.leaves.values():
            assert one.have <= one.asked <= one.size, one.lo

    def _ask(self, now_s: float) -> None:
        """Ask for what comes first, as far as little enough is under way."""
        if not self.leaves:
            return
        room = INPUT_WINDOW - sum([leaf.asked - leaf.have for leaf in self.leaves.values()])
        for leaf in sorted(self.leaves.values(), key=_first):
            if now_s < leaf.again_s:
                continue
            rest = leaf.size - leaf.asked
            if rest and room < min(rest, ASKED_MIN):
                return
            if rest:
                if leaf.asked == leaf.have:
                    leaf.heard_s = now_s
                start, leaf.asked = leaf.asked, leaf.asked + min(room, rest)
                room -= leaf.asked - start
                self._say(leaf, start, leaf.asked)

    def _say(self, leaf: _Leaf, start: int, stop: int) -> None:
        said = InputWanted(self._lease, self._job, leaf.batch, leaf.lo, leaf.have, start, stop)
        self._effects.append(Send(said))

    def _drop(self, leaf: _Leaf) -> None:
        del self.leaves[leaf.number]
        self._effects.append(DropBlob(leaf.number))
        if leaf.asked > leaf.have:
            self._say(leaf, leaf.have, leaf.have)


def _first(leaf: _Leaf) -> int:
    return leaf.lo
