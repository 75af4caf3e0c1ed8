"""The blobs that a scheduler keeps, and for whom. Pure data; what happens to them is in blobs.py.

A blob belongs to a tenant: the same bytes of two tenants are two blobs, so that nobody finds out
what another has. Where its bytes are put is the shell's: it has a number for that.
"""

from collections import Counter

from msgspec import Struct, field

from burla.protocol.arriving import Arriving
from burla.protocol.messages import Blob

STORE_BYTES_MAX = 16 << 30  # of all blobs, on disk, if the disk has twice as much free
NUMBER_MAX = 8192  # of blobs, if there are descriptors for so many: each takes one
IDLE_MAX = 1000  # of them that no job needs
TENANT_SHARE = 2  # one of so many parts of the store, at most, is a tenant's that jobs need

Name = tuple[str, bytes, int]  # tenant, digest, size


class Reader(Struct):
    """A lease whose node was not sent yet all that it asked for."""

    start: int
    stop: int


class Stored(Struct, eq=False):
    """One blob of one tenant."""

    number: int
    tenant: str
    arriving: Arriving
    jobs: dict[bytes, None] = field(default_factory=dict)  # open ones that need it
    source: bytes = b""  # the job whose client is asked for it; empty: none is
    is_wanted: bool = False  # somebody is to be asked for it, unless it is here
    used_s: float = 0.0  # when a job needed it last
    readers: dict[bytes, Reader] = field(default_factory=dict)  # by lease

    @property
    def name(self) -> Name:
        """Return by what it is found."""
        return self.tenant, self.arriving.digest, self.arriving.size


class Needed(Struct):
    """What the open jobs of one tenant need."""

    number: int = 0
    size: int = 0


class BlobTable(Struct, eq=False):
    """All blobs; the one that was needed longest ago comes first."""

    bytes_max: int = STORE_BYTES_MAX
    number_max: int = NUMBER_MAX
    by_name: dict[Name, Stored] = field(default_factory=dict)
    waiting: dict[bytes, None] = field(
        default_factory=dict
    )  # jobs for whose blobs there is no room
    asked: dict[Name, bytes] = field(default_factory=dict)  # session of the client that is asked
    asked_of: Counter[bytes] = field(default_factory=Counter)  # how many, by session
    needed: dict[str, Needed] = field(default_factory=dict)  # by tenant
    size: int = 0  # bytes of all, also of what has not come yet
    made: int = 0

    @property
    def idle_max(self) -> int:
        """Return how many blobs that no job needs are kept at most."""
        return min(IDLE_MAX, self.number_max // 2)

    def fits(self, number: int, size: int) -> bool:
        """Return whether there is room for so many more blobs of so many bytes together."""
        is_few = len(self.by_name) + number <= self.number_max
        return is_few and self.size + size <= self.bytes_max

    def is_share(self, number: int, size: int) -> bool:
        """Return whether the jobs of one tenant may need so much at once."""
        is_few = number <= self.number_max // TENANT_SHARE
        return is_few and size <= self.bytes_max // TENANT_SHARE

    def of(self, tenant: str, blob: Blob) -> Stored | None:
        """Return a tenant's blob, if it is known."""
        return self.by_name.get((tenant, blob.digest, blob.size))
