"""What a lease is, and the states that it goes through. Pure data; it knows no table.

Every change of state goes through `Lease.move`, which knows no exceptions: what peers say, late or
with bad intent, is checked before, so a wrong transition is a bug of the scheduler.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from burla.protocol.messages import Held, Running
from burla.protocol.ranges import Ranges

ReuseKey = tuple[object, ...]  # see Job.reuse_key
TRANSITIONS_KEPT = 100  # of one lease; few have more than five


class LeaseState(StrEnum):
    """Where a lease is in its life."""

    ORPHAN = "orphan"  # a nodelet holds it of a job that this scheduler does not know (yet)
    ACTIVE = "active"  # its node serves its job
    DRAINING = "draining"  # so, but it gets no more work, and is ended when it holds nothing
    WARM = "warm"  # its job is complete; its workers wait for one like it; the node is free
    STOPPING = "stopping"  # told to end; its node is not free before the nodelet says Stopped
    PAST = "past"  # its workers are gone; the nodelet may still keep outcomes of it
    GONE = "gone"  # nothing is left of it: no table has it


_S = LeaseState
TRANSITIONS: Mapping[LeaseState, frozenset[LeaseState]] = {
    _S.ORPHAN: frozenset({_S.ACTIVE, _S.STOPPING, _S.PAST, _S.GONE}),
    _S.ACTIVE: frozenset({_S.DRAINING, _S.WARM, _S.STOPPING, _S.PAST, _S.GONE}),
    _S.DRAINING: frozenset({_S.STOPPING, _S.PAST, _S.GONE}),
    _S.WARM: frozenset({_S.STOPPING, _S.PAST, _S.GONE}),
    _S.STOPPING: frozenset({_S.PAST, _S.GONE}),
    _S.PAST: frozenset({_S.STOPPING, _S.GONE}),  # a nodelet that says that it still runs is told
    _S.GONE: frozenset(),
}
SERVING = frozenset({_S.ACTIVE, _S.DRAINING})  # has work of its job
OCCUPYING = SERVING | {_S.ORPHAN, _S.STOPPING}  # may have processes: the node is not free
ENDED = frozenset({_S.WARM, _S.STOPPING, _S.PAST})  # what its nodelet still sends is welcome


class WrongTransition(Exception):
    """A lease was to go where its state does not lead: a bug of the scheduler."""

    def __init__(self, lease: bytes, before: LeaseState, after: LeaseState) -> None:
        """Name the lease, where it is and where it was to go."""
        super().__init__(f"lease {lease.hex()} cannot go from {before} to {after}")


class Lease(Struct, eq=False):
    """A node given to one job."""

    id: bytes
    node: bytes
    job: bytes
    slots: int  # calls that it may be given at once; 1 while it tries inputs alone
    since_s: float = 0.0  # when it began, on the caller's clock
    state: LeaseState = LeaseState.ACTIVE
    wanted: bool = True  # its job is open here: what its nodelet sends of it is passed on
    until_s: float = 0.0  # an orphan or a warm one stays so until then
    longest_s: float = 0.0  # that a job took which its workers have run
    claim: Held | None = None  # of an orphan: what its nodelet says
    reuse_key: ReuseKey = ()  # of a warm one: jobs with this key may have its workers,
    owner: bytes = b""  # as long as the client session of its job is there
    held: Ranges = field(default_factory=Ranges)  # assigned, no outcome yet
    sent: Ranges = field(default_factory=Ranges)  # whose leaves the nodelet has
    forget: list[int] = field(default_factory=list)  # batches to name in the next Assign
    weight: float = 0.0  # bytes of the held inputs, by their batches' mean
    call_s: float = 0.0  # as the nodelet measured; 0: not known
    is_retracting: bool = False  # asked to give back, has not answered
    had_nothing: bool = False  # to give back, when last asked, and no outcomes came since
    amid: int | None = None  # whose big outcome was passed on in part
    running: Running | None = None  # which of its calls last, as its nodelet said
    full_slots: int = 0  # while it tries inputs alone: what its nodelet was told; else 0
    trial: int | None = None  # the input that runs alone there
    lacking: dict[bytes, None] = field(default_factory=dict)  # blobs that its node has asked for
    history: list[tuple[float, LeaseState]] = field(default_factory=list)  # when it became what

    def __post_init__(self) -> None:
        """Note how it began."""
        self.history.append((self.since_s, self.state))

    def move(self, to: LeaseState, now_s: float) -> None:
        """Change the state.

        Raises:
            WrongTransition: TRANSITIONS does not lead there.
        """
        if to not in TRANSITIONS[self.state]:
            raise WrongTransition(self.id, self.state, to)
        self.state = to
        self.history.append((now_s, to))
        del self.history[:-TRANSITIONS_KEPT]

    @property
    def is_alone(self) -> bool:
        """Whether it runs one input at a time, which may be what other nodes died of."""
        return self.full_slots > 0

    def idle(self) -> int:
        """Return how many of its slots have nothing to run."""
        return max(0, self.slots - self.held.total)

    def unstarted(self) -> int:
        """Return how many of its inputs wait behind those that run."""
        return max(0, self.held.total - self.slots)
