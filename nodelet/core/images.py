"""Images that leases run in, and how far each lease is: its files are fetched, it is entered. Pure.

A lease with an image begins when the shell has the files of that and has made a sandbox in which
they are the file system. The first is done as soon as the node hears of the lease, the second when
no other lease is served: a sandbox is made for one lease. A lease that goes on with the workers of
another like it needs neither.
"""

from msgspec import Struct

from burla.protocol import messages as m

from .effects import Effect, EnterImage, GetImage, LetGoOfImage, Send


class InImage(Struct):
    """One lease that runs in an image."""

    start: m.StartLease
    blobs: tuple[int, ...]  # numbers of those that it needs
    place: str = ""  # where the files are; empty: not there yet
    is_entering: bool = False
    is_entered: bool = False  # a sandbox waits for it
    said: str = ""  # what is being done for it
    refused: m.LeaseRefused | None = None  # it can never begin


class ImageTable:
    """The leases that run in images."""

    def __init__(self, effects: list[Effect]) -> None:
        """Start empty; `effects` is where all it asks for is put."""
        self._effects = effects
        self._leases: dict[bytes, InImage] = {}

    def need(self, start: m.StartLease, blobs: tuple[int, ...]) -> str:
        """Get the image of a lease; return where it is if that is known, and then keep it."""
        places = [one.place for one in self._leases.values() if one.start.image == start.image]
        place = next(filter(None, places), "")
        self._leases[start.lease] = InImage(start, blobs, place)
        self._effects.append(GetImage(start.lease, start.image, place))
        return place

    def there(self, lease: bytes, place: str) -> InImage | None:
        """Take note where the files of its image are; return the lease if that is news."""
        found = self._leases.get(lease)
        if found is None or found.place or found.refused is not None:
            return None
        self.progress(lease, "")
        found.place = place
        return found

    def has_files(self, lease: bytes) -> bool:
        """Return whether all is there that a lease needs of its image, but for a sandbox."""
        found = self._leases.get(lease)
        return found is None or (bool(found.place) and found.refused is None)

    def enter(self, lease: bytes) -> bool:
        """Return whether a lease may begin now; else see to it, since nothing else is served."""
        found = self._leases.get(lease)
        if found is None or found.is_entered:
            return True
        if not found.is_entering and found.refused is None:
            found.is_entering = True
            self._effects.append(EnterImage(lease, found.place))
        return False

    def entered(self, lease: bytes) -> None:
        """Take note that a sandbox waits for a lease."""
        if (found := self._leases.get(lease)) is not None:
            found.is_entered = True

    def has_entered(self, lease: bytes) -> bool:
        """Return whether a lease is to begin in a sandbox that waits for it."""
        found = self._leases.get(lease)
        return found is not None and found.is_entered

    def progress(self, lease: bytes, text: str) -> None:
        """Take note of what is being done for a lease."""
        found = self._leases.get(lease)
        if found is not None and not found.place and text != found.said:
            found.said = text
            self._effects.append(Send(m.Preparing(lease, text)))

    def failed(self, lease: bytes, why: str) -> None:
        """Take note that a lease can never begin."""
        found = self._leases.get(lease)
        if found is not None and found.refused is None:
            found.refused = m.LeaseRefused(lease, why)
            self._effects.append(Send(found.refused))

    def send_again(self) -> None:
        """Say again what may be lost."""
        for lease, found in self._leases.items():
            if found.refused is not None:
                self._effects.append(Send(found.refused))
            elif found.said:
                self._effects.append(Send(m.Preparing(lease, found.said)))

    def release(self, lease: bytes) -> None:
        """Take note that a lease needs nothing any more, if it does."""
        if self._leases and self._leases.pop(lease, None) is not None:
            self._effects.append(LetGoOfImage(lease))

    def snapshot(self) -> dict[str, object]:
        """Return its state, for people."""
        return {
            lease.hex(): {
                "image": found.start.image,
                "place": found.place,
                "doing": found.said,
                "is_entered": found.is_entered,
                "refused": None if found.refused is None else found.refused.why,
            }
            for lease, found in self._leases.items()
        }
