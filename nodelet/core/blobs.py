"""The blobs that a node keeps: asked for when a lease lacks them, kept for the next one. Pure.

A blob belongs to an owner, whom the scheduler names: the same bytes of two owners are two blobs. A
lease begins when it has all that it names. What no lease needs goes when it has not been used for
long, when its room is needed, and when the node runs short of memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from burla.protocol import messages as m
from burla.protocol.arriving import WRONG_MAX, Arriving

from .effects import DropBlob, Effect, FinishBlob, KeepBlob, Note, Send

KEPT_S = 600.0  # since a lease needed them
ASKED_MAX = 2  # at a time: each has a window of its own

Name = tuple[bytes, bytes, int]  # owner, digest, size


@dataclass(slots=True, eq=False)
class NodeBlob:
    """One blob of one owner."""

    number: int
    arriving: Arriving
    leases: dict[bytes, None] = field(default_factory=dict)  # that need it
    used_s: float = 0.0


class Blobs:
    """All blobs of a node; the one that was needed longest ago comes first."""

    def __init__(self, bytes_max: int, effects: list[Effect]) -> None:
        """Keep at most `bytes_max` bytes; `effects` is where all it asks for is put."""
        self._bytes_max = bytes_max
        self._effects = effects
        self._by_name: dict[Name, NodeBlob] = {}
        self._lacking: dict[bytes, dict[Name, None]] = {}  # by lease that waits
        self._refused: dict[bytes, str] = {}  # leases that can never begin, and why
        self._bytes = 0
        self._made = 0

    def need(self, start: m.StartLease, now_s: float) -> tuple[int, ...]:
        """Get what a lease needs, as far as it is not here; return its numbers, in order."""
        names = [(start.owner, blob.digest, blob.size) for blob in start.blobs]
        if not self._has_room(set(names)):
            self._refused[start.lease] = why = "it has no room for what the function refers to"
            self._effects.append(Send(m.LeaseRefused(start.lease, why)))
            return ()
        numbers = []
        for name in names:
            if (blob := self._by_name.get(name)) is None:
                self._made += 1
                blob = self._by_name[name] = NodeBlob(self._made, Arriving(*name[1:]))
                self._bytes += name[2]
            blob.leases[start.lease] = None
            numbers.append(blob.number)
            if not blob.arriving.is_whole():
                self._lacking.setdefault(start.lease, {})[name] = None
        self._ask(now_s)
        return tuple(numbers)

    def has_all(self, lease: bytes) -> bool:
        """Return whether a lease may begin."""
        return lease not in self._lacking and lease not in self._refused

    def release(self, lease: bytes, now_s: float) -> None:
        """Take note that a lease needs nothing any more, if it does."""
        if not self._by_name and not self._refused:
            return
        self._lacking.pop(lease, None)
        self._refused.pop(lease, None)
        for name, blob in list(self._by_name.items()):
            if lease in blob.leases:
                del blob.leases[lease]
                blob.used_s = now_s
                del self._by_name[name]
                self._by_name[name] = blob  # the last to go
                if not blob.leases and not blob.arriving.is_whole():
                    self._drop(name)

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
        """Take note that a blob cannot be kept."""
        for blob in self._by_name.values():
            if blob.number == number:
                self._refuse(blob, f"what the function refers to cannot be kept: {why}")
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
        for name in [name for name, blob in self._by_name.items() if not blob.leases]:
            self._drop(name)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        assert self._bytes == sum(name[2] for name in self._by_name) <= self._bytes_max
        for lease, lacks in self._lacking.items():
            assert lacks, lease.hex()
            for name in lacks:
                assert lease in self._by_name[name].leases
                assert not self._by_name[name].arriving.is_whole()
        for blob in self._by_name.values():
            assert blob.leases or blob.arriving.is_whole()

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people: no payload and no secret is in it."""
        return {
            "bytes_max": self._bytes_max,
            "blobs": [
                {
                    "digest": digest.hex(),
                    "bytes": size,
                    "bytes_here": blob.arriving.have,
                    "leases": [lease.hex() for lease in blob.leases],
                    "used_s": blob.used_s,
                }
                for (_, digest, size), blob in self._by_name.items()
            ],
            "refused": {lease.hex(): why for lease, why in self._refused.items()},
        }

    def _has_room(self, names: set[Name]) -> bool:
        """Make room for what is new of `names`, by dropping what no lease needs."""
        new = sum(name[2] for name in names if name not in self._by_name)
        for name in list(self._by_name):
            if self._bytes + new <= self._bytes_max:
                break
            if not self._by_name[name].leases and name not in names:
                self._drop(name)
        return self._bytes + new <= self._bytes_max

    def _refuse(self, blob: NodeBlob, why: str) -> None:
        for lease in list(blob.leases):
            if lease not in self._refused:
                self._refused[lease] = why
                self._lacking.pop(lease, None)
                self._effects.append(Send(m.LeaseRefused(lease, why)))

    def _ask(self, now_s: float) -> None:
        asked = 0
        for lease, lacks in self._lacking.items():
            for name in lacks:
                arriving = self._by_name[name].arriving
                while (part := arriving.ask(now_s)) is not None:
                    self._effects.append(Send(m.BlobWanted(lease, arriving.digest, *part)))
                asked += 1
                if asked == ASKED_MAX:
                    return

    def _drop(self, name: Name) -> None:
        blob = self._by_name.pop(name)
        self._bytes -= name[2]
        self._effects.append(DropBlob(blob.number))
