"""What a nodelet says of calls that were run."""

from collections.abc import Sequence

from burla.protocol.codec import pack_runs, read_runs, unpack_runs
from burla.protocol.messages import Kind, Outcomes, Run
from burla.protocol.ranges import Ranges


def outcomes(
    lease: bytes,
    runs: Sequence[Run],
    seq: int = 1,
    call_s: float = 0.01,
    frames: Sequence[bytes] = (),
) -> Outcomes:
    """Return the message about these runs; `frames` of the only one, else they have a byte each."""
    return Outcomes(
        lease=lease,
        seq=seq,
        done=tuple(Ranges((run.lo, run.hi) for run in runs)),
        failed=any(run.kind in (Kind.ERROR, Kind.DEATH) for run in runs),
        runs=pack_runs([(runs[0], frames)])[0] if frames else table_of(runs),
        output=0,
        call_s=call_s,
    )


def table_of(runs: Sequence[Run]) -> bytes:
    """Return the table of runs whose frames have a byte each."""
    return pack_runs([(run, [b"r"] * run.frames) for run in runs])[0]


def payload_of(table: bytes, byte: bytes = b"r") -> list[bytes]:
    """Return a payload that fits a table of runs."""
    size = sum(sum(sizes) for _, sizes, _ in read_runs(table))
    return [byte * size] if size else []


def runs_of(table: bytes) -> list[Run]:
    """Return the runs of a table."""
    return [run for run, _ in unpack_runs(table, payload_of(table))]
