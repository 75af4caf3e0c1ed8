"""What a nodelet says of calls that were run."""

from collections.abc import Sequence

from burla.wire.codec import pack_runs
from burla.wire.messages import Kind, Outcomes, Run
from burla.wire.ranges import Ranges


def outcomes(lease: bytes, runs: Sequence[Run], seq: int = 1, call_s: float = 0.01) -> Outcomes:
    """Return the message about these runs."""
    return Outcomes(
        lease=lease,
        seq=seq,
        done=tuple(Ranges((run.lo, run.hi) for run in runs)),
        failed=any(run.kind in (Kind.ERROR, Kind.DEATH) for run in runs),
        runs=pack_runs(runs),
        output=0,
        call_s=call_s,
        dry=0,
    )
