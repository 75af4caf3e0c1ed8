"""How much work goes to which lease of a job, and who gives some back. Pure policy.

Earlier inputs first; every slot has work at once; then a little ahead, by the measured length of
calls, so that no slot waits for a round trip; and when nothing is pending, whoever would finish
last gives some back.
"""

from math import ceil

from .lease import Lease
from .work import Work

AHEAD_INTERVALS = (
    2  # work ahead lasts this many report intervals: one under way, one being gathered
)
REPORT_MIN_S, REPORT_MAX_S = 0.02, 0.25
REPORT_NODE_S = 0.0025  # a job on n nodes is reported on every n times this, within the bounds
LEASE_BYTES = 32 << 20  # inputs held by a lease beyond one per slot
ASSIGN_BYTES_MAX = 64 << 20  # of inputs in one message, or one that is larger
UNKNOWN_AHEAD = 2  # calls per slot while it is not known how long one takes
SUSPECTS_AHEAD = 1024  # of a lease at most, while what it runs may be what nodes die of
RETRACT_MIN_S = 0.002  # what is done sooner than a round trip is not worth moving


def report_s(nodes: int) -> float:
    """Return how long nodelets gather outcomes of a job that has `nodes` nodes."""
    return min(REPORT_MAX_S, max(REPORT_MIN_S, nodes * REPORT_NODE_S))


def target(work: Work, lease: Lease) -> int:
    """Return how many indices `lease` should hold, if there are enough."""
    if lease.is_alone:
        return 0
    may_kill = work.suspects.is_open
    if len(work.leases) == 1 and not may_kill:  # no other could; later ones get it by Retract
        return lease.held.total + work.pending.total
    if not lease.call_s:
        return lease.slots * UNKNOWN_AHEAD
    ahead_s = AHEAD_INTERVALS * report_s(len(work.leases))
    wanted = lease.slots + ceil(lease.slots * ahead_s / lease.call_s)
    if may_kill:  # what dies with a node is looked at one by one: that should not be much
        wanted = min(wanted, max(lease.slots * UNKNOWN_AHEAD, SUSPECTS_AHEAD))
    return wanted


def is_hungry(work: Work, lease: Lease) -> bool:
    """Return whether `lease` would take more than it holds, if there were more."""
    return lease.held.total < target(work, lease)


def portion(work: Work, lease: Lease) -> int:
    """Return how many pending indices `lease` should get now."""
    pending = work.pending.total
    held, slots = lease.held.total, lease.slots
    room = target(work, lease) - held
    if room <= 0 or not pending:
        return 0
    if len(work.leases) > 1:
        # every slot its share; then half of a fair share at a time, so that the end is even
        share = pending * slots / work.slots
        idle = work.slots - (work.held - work.unstarted)
        at_once = ceil(pending * lease.idle() / idle) if idle else 0
        room = min(room, max(ceil(share / 2), min(lease.idle(), at_once)))
    count = min(room, pending)
    if count <= slots - held:  # one for each slot, however large they are
        return count
    fitting = int((LEASE_BYTES - lease.weight) / max(1.0, _bytes_of_next(work)))
    return min(count, max(0, slots - held, fitting))


def in_one_message(work: Work, count: int) -> int:
    """Return how many of the next `count` pending indices go with one message; at least one."""
    if work.batches.size <= ASSIGN_BYTES_MAX:
        return count
    fitting, room = 0, float(ASSIGN_BYTES_MAX)
    for lo, hi in work.pending:
        for span in work.batches.spans(lo, min(hi, lo + count - fitting)):
            each = max(1.0, work.batches.kept[span.batch].bytes_each())
            taken = min(span.hi - span.lo, int(room / each))
            fitting, room = fitting + taken, room - taken * each
            if taken < span.hi - span.lo or fitting == count:
                return max(1, fitting)
    return max(1, fitting)


def _bytes_of_next(work: Work) -> float:
    first = work.pending.first()
    if first is None:
        return 0.0
    (span,) = work.batches.spans(first[0], first[0] + 1)
    return work.batches.kept[span.batch].bytes_each()


def to_retract(work: Work) -> tuple[Lease, int] | None:
    """Return the lease that should give back inputs, and how many; None: none should.

    Asked when nothing is pending and some lease has an idle slot: then another that holds more
    than it runs, and would finish last, gives the idle ones their share of it.
    """
    idle = work.slots - (work.held - work.unstarted)
    if idle <= 0 or not work.unstarted:
        return None
    best: tuple[float, Lease] | None = None
    for lease in work.leases.values():
        spare = lease.unstarted()
        if not spare or lease.is_retracting or lease.had_nothing:
            continue
        ahead_s = spare * lease.call_s / lease.slots
        if lease.call_s and ahead_s < RETRACT_MIN_S:
            continue
        if best is None or ahead_s > best[0]:
            best = (ahead_s, lease)
    if best is None:
        return None
    lease = best[1]
    return lease, max(1, ceil(lease.unstarted() * idle / (idle + lease.slots)))
