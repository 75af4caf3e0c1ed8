"""What leases need of packages, and whether the node has it. Pure.

A lease that names packages begins when the shell says where they are. Those of a lease that is
still there are known to be there: a loop of maps asks for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from burla.protocol import messages as m

from .effects import Effect, GetPackages, LetGoOfPackages, Send


@dataclass(slots=True)
class Needed:
    """What one lease needs."""

    packed: bytes
    place: str | None = None  # where imports are to look first, empty: as ever; None: not there yet
    said: str = ""  # what is being done for it
    refused: m.LeaseRefused | None = None  # it can never begin


class PackageTable:
    """The leases that need packages."""

    def __init__(self, effects: list[Effect]) -> None:
        """Start empty; `effects` is where all it asks for is put."""
        self._effects = effects
        self._leases: dict[bytes, Needed] = {}

    def need(self, lease: bytes, packed: bytes) -> None:
        """Get what a lease needs."""
        same = (e for e in self._leases.values() if e.packed == packed and e.place is not None)
        known = next(same, None)
        self._leases[lease] = Needed(packed, None if known is None else known.place)
        self._effects.append(GetPackages(lease, packed))  # also to keep them

    def has_all(self, lease: bytes) -> bool:
        """Return whether a lease may begin."""
        needed = self._leases.get(lease)
        return needed is None or (needed.place is not None and needed.refused is None)

    def place_of(self, lease: bytes) -> str:
        """Return where imports of a lease are to look first; empty: as ever."""
        needed = self._leases.get(lease)
        return "" if needed is None else needed.place or ""

    def progress(self, lease: bytes, text: str) -> None:
        """Take note of what is being done for a lease."""
        needed = self._leases.get(lease)
        if needed is not None and needed.place is None and text != needed.said:
            needed.said = text
            self._effects.append(Send(m.Preparing(lease, text)))

    def there(self, lease: bytes, place: str) -> None:
        """Take note that a lease may begin."""
        needed = self._leases.get(lease)
        if needed is None or needed.place is not None:
            return
        self.progress(lease, "")
        needed.place = place

    def failed(self, lease: bytes, why: str, lacking: Sequence[str]) -> None:
        """Take note that a lease can never begin."""
        needed = self._leases.get(lease)
        if needed is not None and needed.refused is None:
            needed.refused = m.LeaseRefused(lease, why, tuple(lacking))
            self._effects.append(Send(needed.refused))

    def send_again(self) -> None:
        """Say again what may be lost."""
        for lease, needed in self._leases.items():
            if needed.refused is not None:
                self._effects.append(Send(needed.refused))
            elif needed.said:
                self._effects.append(Send(m.Preparing(lease, needed.said)))

    def release(self, lease: bytes) -> None:
        """Take note that a lease needs nothing any more, if it does."""
        if self._leases and self._leases.pop(lease, None) is not None:
            self._effects.append(LetGoOfPackages(lease))

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people."""
        return {
            lease.hex(): {
                "place": needed.place,
                "doing": needed.said,
                "refused": None if needed.refused is None else needed.refused.why,
            }
            for lease, needed in self._leases.items()
        }
