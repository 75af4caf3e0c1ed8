"""What leases need of packages, and whether the node has it. Pure.

Some are installed, others come as files of the caller's, in blobs: when these are here the shell
puts them where later leases of this user find them as well.

A lease that names packages begins when the shell says where they are. Those of a lease that is
still there are known to be there: a loop of maps asks for nothing.
"""

from collections.abc import Sequence

from msgspec import Struct

from burla.protocol import messages as m
from burla.protocol.package_messages import are_files

from .effects import Effect, GetFiles, GetPackages, LetGoOfPackages, Send


class Needed(Struct):
    """What one lease needs."""

    packed: bytes  # empty: nothing is to be installed
    image: str  # where the files of its image are; empty: it runs in none
    files: tuple[bytes, tuple[m.Blob, ...]]  # whose, and which
    numbers: tuple[int, ...] = ()  # of these blobs
    place: str | None = None  # where imports are to look first, empty: as ever; None: not there yet
    files_place: str | None = None  # likewise, before that; empty: workers have the blobs instead
    said: str = ""  # what is being done for it
    refused: m.LeaseRefused | None = None  # it can never begin


class PackageTable:
    """The leases that need packages."""

    def __init__(self, effects: list[Effect]) -> None:
        """Start empty; `effects` is where all it asks for is put."""
        self._effects = effects
        self._leases: dict[bytes, Needed] = {}
        self.awaited: dict[bytes, None] = {}  # leases whose blobs with files may not be here yet

    def need(self, start: m.StartLease, numbers: Sequence[int], image: str = "") -> None:
        """Get what a lease needs, if it needs anything.

        Args:
            start: what the scheduler said of it.
            numbers: those of its blobs.
            image: where the files of its image are; empty: it runs in none.
        """
        listed = [
            (blob, number)
            for blob, number in zip(start.blobs, numbers, strict=False)
            if are_files(blob.name)
        ]
        if not start.packages and not listed:
            return
        blobs, of_blobs = tuple(blob for blob, _ in listed), tuple(number for _, number in listed)
        needed = Needed(start.packages, image, (start.owner, blobs), of_blobs)
        for one in self._leases.values():
            is_same = (one.packed, one.image) == (needed.packed, image)
            if is_same and needed.place is None:
                needed.place = one.place
            if one.files == needed.files and needed.files_place is None:
                needed.files_place = one.files_place
        self._leases[start.lease] = needed
        if needed.packed:
            self._effects.append(GetPackages(start.lease, needed.packed, image))  # and keep them
        else:
            needed.place = ""
        if blobs:
            self.awaited[start.lease] = None
        else:
            needed.files_place = ""

    def blobs_there(self, lease: bytes) -> None:
        """Take note that all blobs of a lease are here."""
        if lease in self.awaited:
            del self.awaited[lease]
            needed = self._leases[lease]
            owner, blobs = needed.files
            pairs = zip(needed.numbers, blobs, strict=True)
            files = tuple((number, blob.size) for number, blob in pairs)
            self._effects.append(GetFiles(lease, owner, files))

    def files_there(self, lease: bytes, place: str) -> None:
        """Take note where files of a lease are; empty: its workers have to put them down."""
        needed = self._leases.get(lease)
        if needed is not None and needed.files_place is None:
            needed.files_place = place

    def has_all(self, lease: bytes) -> bool:
        """Return whether a lease may begin."""
        needed = self._leases.get(lease)
        if needed is None:
            return True
        places = (needed.place, needed.files_place)
        return None not in places and needed.refused is None

    def places_of(self, lease: bytes) -> tuple[str, str]:
        """Return where imports of a lease are to look first: for files, and then for the others."""
        needed = self._leases.get(lease)
        return ("", "") if needed is None else (needed.files_place or "", needed.place or "")

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
            self.awaited.pop(lease, None)
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
