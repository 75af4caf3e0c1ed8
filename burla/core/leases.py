"""What has come from each lease of one job, and when something is to be done about it. Pure."""

import math

from msgspec import Struct, field

from .acks import ACK_LATE_S, Acks
from .gathering import Gathering
from .output_order import OutputOrder


class Lease(Struct):
    """What has come from one lease."""

    id: bytes
    node: str = ""
    written: int = 0  # output chunks up to this one are written
    acks: Acks = field(default_factory=Acks)
    output: OutputOrder = field(default_factory=OutputOrder)
    gathering: Gathering | None = None  # an outcome of which some has come


class Leases(Struct):
    """The leases of one job that anything came from."""

    known: dict[bytes, Lease] = field(default_factory=dict)
    lacking: dict[bytes, Lease] = field(default_factory=dict)  # output is missing, in order
    ack_s: float = math.inf  # when what is safe is acknowledged at the latest
    _unacknowledged: dict[bytes, Lease] = field(default_factory=dict)

    def of(self, lease_id: bytes, node: str) -> Lease:
        """Return what has come from a lease, also if that is nothing yet; `node` may be empty."""
        lease = self.known.get(lease_id)
        if lease is None:
            lease = self.known[lease_id] = Lease(lease_id)
        lease.node = node or lease.node
        return lease

    def look(self, lease: Lease) -> None:
        """Take note whether output of a lease is missing now; called when that may have changed."""
        if lease.output.look_s is None:
            self.lacking.pop(lease.id, None)
        else:
            self.lacking[lease.id] = lease

    def acknowledge_later(self, lease: Lease, now_s: float) -> None:
        """Have `take_unacknowledged` return this lease in a moment."""
        self._unacknowledged[lease.id] = lease
        self.ack_s = min(self.ack_s, now_s + ACK_LATE_S)

    def acknowledged(self, lease: Lease) -> None:
        """Note that a lease has been acknowledged by other occasion."""
        self._unacknowledged.pop(lease.id, None)

    def take_unacknowledged(self, now_s: float) -> list[Lease]:
        """Return what is to be acknowledged now; it is taken as done."""
        if now_s < self.ack_s:
            return []
        self.ack_s = math.inf
        leases = list(self._unacknowledged.values())
        self._unacknowledged.clear()
        return leases

    def look_s(self) -> float:
        """Return when to do something about missing output next; inf: there is none."""
        looks = [lease.output.look_s for lease in self.lacking.values()]
        return min((look_s for look_s in looks if look_s is not None), default=math.inf)

    def check(self) -> None:
        """Assert what holds between any two calls. Costs O(state): for tests."""
        for lease_id, lease in self.known.items():
            assert lease.id == lease_id
            lease.acks.check()
            assert lease.written < lease.output.due
            assert (lease_id in self.lacking) == lease.output.lacking()
            assert lease.output.lacking() == (lease.output.look_s is not None)
        assert not self._unacknowledged or self.ack_s < math.inf
