"""Two users with the same work on two nodes, the second one later: who waits, and for how long."""

import time
from collections.abc import Iterator

from .clusters import running
from .measure import Options, Series, summary
from .peers import BURLA
from .user import Times, user

NODES, SLOTS = 2, 8
CALLS = 1_000
CALL_S = 0.1
LATER = 1 / 3  # of the time that one user alone would take, the second one begins


def fair_s(calls: int, later_s: float, slots: int = NODES * SLOTS) -> tuple[float, float]:
    """Return when each of two users would have all its results after its start, in a fair split.

    Until the second begins the first has all slots, then both have half, and who is left has all.
    """
    work_s = calls * CALL_S / slots  # of one user, on all slots
    left_s = max(0.0, work_s - later_s)
    first_s = min(work_s, later_s) + 2 * left_s
    return first_s, left_s + work_s


def measure(options: Options) -> Iterator[Series]:
    """Yield the wait for the second's first result, and both ends."""
    calls = max(2 * NODES * SLOTS, options.scaled(CALLS))
    later_s = LATER * calls * CALL_S / (NODES * SLOTS)
    waits = Series("shares/the second's first result", {BURLA: []})
    first = Series("shares/the first's last result", {BURLA: []})
    second = Series("shares/the second's last result", {BURLA: []})
    for _ in range(options.rounds):
        one, two = _round(calls, later_s)
        waits.seconds[BURLA].append(two.first - two.begun)
        first.seconds[BURLA].append(one.last - one.begun)
        second.seconds[BURLA].append(two.last - two.begun)
    waits.notes.append(
        f"two users, {calls:,} calls of {CALL_S:g} s each on {NODES} nodes x {SLOTS} slots, the "
        f"second one {later_s:.2f} s later; in its wait is a call of the first"
    )
    yield waits
    for series, fair in zip((first, second), fair_s(calls, later_s), strict=True):
        part = summary(series.seconds[BURLA]).median / fair
        series.notes.append(f"fair split, computed: {fair:.2f} s; median / that: {part:.2f}")
        series.figures["times a fair split"] = part
        yield series


def _round(calls: int, later_s: float) -> tuple[Times, Times]:
    with (
        running(SLOTS, NODES),
        user("alice", calls, CALL_S) as alice,
        user("bob", calls, CALL_S) as bob,
    ):
        alice.begin()
        time.sleep(later_s)
        bob.begin()
        return alice.times(), bob.times()
