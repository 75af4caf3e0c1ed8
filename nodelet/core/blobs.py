"""The blobs that a node keeps: asked for when a lease lacks them, kept for the next one. Pure.

A blob belongs to an owner, whom the scheduler names: the same bytes of two owners are two blobs. A
lease begins when it has all that it names. Leases get room in the order in which they came, each
for all that it names or for nothing; until then nothing is asked for it. What no lease needs goes
when it has not been used for long, when its room is needed, when there are too many, and when the
node runs short of memory.
"""

from collections.abc import Callable, Sequence
from itertools import count

from msgspec import Struct, field

from burla.protocol import messages as m
from burla.protocol.arriving import WRONG_MAX, Arriving

from .effects import DropBlob, Effect, FinishBlob, KeepBlob, Note, Send

KEPT_S = 600.0  # since a lease needed them
ASKED_MAX = 2  # at a time: each has a window of its own
IDLE_MAX = 1000  # that no lease needs: each takes a descriptor

Name = tuple[bytes, bytes, int]  # owner, digest, size


class NodeBlob(Struct, eq=False):
    """One blob of one owner."""

    number: int
    arriving: Arriving
    leases: dict[bytes, None] = field(default_factory=dict)  # that need it
    has_room: bool = False  # else nothing of it is here or asked for
    used_s: float = 0.0


class Blobs:
    """All blobs of a node; the one that was needed longest ago comes first."""

    def __init__(
        self,
        bytes_max: int,
        effects: list[Effect],
        idle_max: int = IDLE_MAX,
        new_number: Callable[[], int] | None = None,
    ) -> None:
        """Start empty.

        Args:
            bytes_max: keep at most so many bytes.
            effects: where all it asks for is put.
            idle_max: keep at most so many blobs that no lease needs.
            new_number: for a blob, if others have numbers of the same kind.
        """
        self._bytes_max, self._idle_max = bytes_max, idle_max
        self._effects = effects
        self._by_name: dict[Name, NodeBlob] = {}
        self._lacking: dict[bytes, dict[Name, None]] = {}  # by lease that waits
        self._no_room: dict[bytes, None] = {}  # leases that wait for room, in turn
        self._refused: dict[bytes, str] = {}  # leases that can never begin, and why
        self._bytes = 0  # of all that have room
        self._new_number = new_number or count(1).__next__

    def need(self, start: m.StartLease, now_s: float) -> tuple[int, ...]:
        """Get what a lease needs, as far as it is not here; return its numbers, in order."""
        names = [(start.owner, blob.digest, blob.size) for blob in start.blobs]
        if sum(size for *_, size in set(names)) > self._bytes_max:
            self._refused[start.lease] = why = "it has no room for what the function refers to"
            self._effects.append(Send(m.LeaseRefused(start.lease, why)))
            return ()
        numbers = []
        for name in names:
            if (blob := self._by_name.get(name)) is None:
                blob = self._by_name[name] = NodeBlob(self._new_number(), Arriving(*name[1:]))
            blob.leases[start.lease] = None
            numbers.append(blob.number)
            if not blob.arriving.is_whole():
                self._lacking.setdefault(start.lease, {})[name] = None
        self._no_room[start.lease] = None
        self._let_in()
        self._ask(now_s)
        return tuple(numbers)

    def has_all(self, lease: bytes) -> bool:
        """Return whether a lease may begin."""
        waits = lease in self._lacking or lease in self._no_room
        return not waits and lease not in self._refused

    def release(self, lease: bytes, now_s: float) -> None:
        """Take note that a lease needs nothing any more, if it does."""
        if not self._by_name and not self._refused:
            return
        self._lacking.pop(lease, None)
        self._no_room.pop(lease, None)
        self._refused.pop(lease, None)
        for name, blob in list(self._by_name.items()):
            if lease in blob.leases:
                del blob.leases[lease]
                blob.used_s = now_s
                del self._by_name[name]
                self._by_name[name] = blob  # the last to go
                if not blob.leases and not blob.arriving.is_whole():
                    self._drop(name)
        idle = self._idle()
        for name in idle[: max(0, len(idle) - self._idle_max)]:
            self._drop(name)
        self._let_in()
        self._ask(now_s)

    def take(self, said: m.BlobPiece, payload: Sequence[bytes], now_s: float) -> None:
        """Take a piece, if it was asked for."""
        for name in self._lacking.get(said.about, ()):
            if name[1] == said.digest:
                break
        else:
            return
        blob = self._by_name[name]
        arriving, wrong = blob.arriving, blob.arriving.wrong
        if not arriving.take(said.start, payload, now_s):
            return
        if arriving.wrong > wrong:
            self._effects.append(Note("a blob has arrived as other bytes than its name says"))
            self._effects.append(DropBlob(blob.number))
            if arriving.wrong >= WRONG_MAX:
                self._refuse(blob, "what the function refers to arrives as other bytes each time")
                return
        else:
            self._effects.append(KeepBlob(blob.number, said.start, payload))
        if arriving.is_whole():
            self._effects.append(FinishBlob(blob.number))
            for lease in blob.leases:
                if (lacks := self._lacking.get(lease)) is not None:
                    lacks.pop(name, None)
                    if not lacks:
                        del self._lacking[lease]
        self._ask(now_s)

    def failed(self, number: int, why: str) -> None:
        """Take note that a blob cannot be kept: the next lease that needs it asks for it anew."""
        for name, blob in self._by_name.items():
            if blob.number == number:
                self._refuse(blob, f"what the function refers to cannot be kept: {why}")
                self._drop(name)
                return

    def ask_again(self, now_s: float) -> None:
        """Ask for all that is missing: what was asked or sent is lost, perhaps."""
        for lacks in self._lacking.values():
            for name in lacks:
                self._by_name[name].arriving.forget_asked()
        for lease, why in self._refused.items():
            self._effects.append(Send(m.LeaseRefused(lease, why)))
        self._ask(now_s)

    def settle(self, now_s: float) -> None:
        """Ask again for what does not come; let go of what was not used for long."""
        for lacks in self._lacking.values():
            for name in lacks:
                if self._by_name[name].arriving.is_stalled(now_s):
                    self._by_name[name].arriving.forget_asked()
        for name, blob in list(self._by_name.items()):
            if not blob.leases and now_s >= blob.used_s + KEPT_S:
                self._drop(name)
        self._ask(now_s)

    def drop_unneeded(self) -> None:
        """Let go of all that no lease needs: memory is short."""
        for name in self._idle():
            self._drop(name)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        bytes_here = sum(name[2] for name, blob in self._by_name.items() if blob.has_room)
        assert self._bytes == bytes_here <= self._bytes_max
        assert not self._no_room.keys() & self._refused.keys()
        for lease, lacks in self._lacking.items():
            assert lacks, lease.hex()
            for name in lacks:
                assert lease in self._by_name[name].leases
                assert not self._by_name[name].arriving.is_whole()
        for blob in self._by_name.values():
            assert blob.leases or blob.arriving.is_whole()
            assert blob.has_room or not blob.arriving.asked
            waits = all(each in self._no_room or each in self._refused for each in blob.leases)
            assert blob.has_room or waits

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people: no payload and no secret is in it."""
        return {
            "bytes_max": self._bytes_max,
            "blobs": [
                {
                    "digest": digest.hex(),
                    "bytes": size,
                    "bytes_here": blob.arriving.have,
                    "has_room": blob.has_room,
                    "leases": [lease.hex() for lease in blob.leases],
                    "used_s": blob.used_s,
                }
                for (_, digest, size), blob in self._by_name.items()
            ],
            "refused": {lease.hex(): why for lease, why in self._refused.items()},
        }

    def _idle(self) -> list[Name]:
        """Return what no lease needs, the oldest first."""
        return [name for name, blob in self._by_name.items() if not blob.leases]

    def _let_in(self) -> None:
        """Give room to the leases that wait for it, in turn: else a big one waits for ever."""
        for lease in list(self._no_room):
            if not self._make_room(lease):
                return
            del self._no_room[lease]

    def _make_room(self, lease: bytes) -> bool:
        """Make room for all that a lease lacks; return whether there is so much."""
        lacks = [self._by_name[name] for name in self._lacking.get(lease, ())]
        new = [blob for blob in lacks if not blob.has_room]
        needed = sum(blob.arriving.size for blob in new)
        here = [(name, blob) for name, blob in self._by_name.items() if blob.has_room]
        loose = [name for name, blob in here if not self._is_held(blob, lease)]
        if self._bytes + needed - sum(name[2] for name in loose) > self._bytes_max:
            return False
        loose.sort(key=lambda name: bool(self._by_name[name].leases))  # first what nobody needs
        for name in loose:
            if self._bytes + needed <= self._bytes_max:
                break
            self._take_back(name)
        for blob in new:
            blob.has_room = True
        self._bytes += needed
        return True

    def _is_held(self, blob: NodeBlob, lease: bytes) -> bool:
        """Return whether `lease` needs a blob, or one that does not wait for room does."""
        return any(each == lease or each not in self._no_room for each in blob.leases)

    def _take_back(self, name: Name) -> None:
        """Take the room of a blob that nobody needs, or only leases whose turn is later."""
        blob = self._by_name[name]
        if not blob.leases:
            self._drop(name)
            return
        self._bytes -= name[2]
        self._effects.append(DropBlob(blob.number))
        blob.has_room, blob.arriving = False, Arriving(*name[1:])
        for each in blob.leases:
            self._lacking.setdefault(each, {})[name] = None

    def _refuse(self, blob: NodeBlob, why: str) -> None:
        for lease in list(blob.leases):
            if lease not in self._refused:
                self._refused[lease] = why
                self._lacking.pop(lease, None)
                self._no_room.pop(lease, None)
                self._effects.append(Send(m.LeaseRefused(lease, why)))

    def _ask(self, now_s: float) -> None:
        asked = 0
        for lease, lacks in self._lacking.items():
            if lease in self._no_room:
                continue
            for name in lacks:
                arriving = self._by_name[name].arriving
                while (part := arriving.ask(now_s)) is not None:
                    self._effects.append(Send(m.BlobWanted(lease, arriving.digest, *part)))
                asked += 1
                if asked == ASKED_MAX:
                    return

    def _drop(self, name: Name) -> None:
        blob = self._by_name.pop(name)
        self._bytes -= name[2] if blob.has_room else 0
        self._effects.append(DropBlob(blob.number))
