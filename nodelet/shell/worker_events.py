"""The words between `WorkerPool` and its owner: what is asked for, and what is told. No code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from burla.nodelet.core.memory_policy import Reading
from burla.nodelet.worker.pipes import Frame, Kind

Range = tuple[int, int]  # [lo, hi)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How a function is loaded, besides its bytes."""

    unpack: bool = False  # the tuple rule
    environment: bytes = b""  # msgpack of values.Environment, as the client packed it
    variables: dict[str, str] = field(default_factory=dict)  # BURLA_JOB_ID, BURLA_NODE, ...
    func_cpu: int = 1  # threads of numeric libraries, unless the environment sets them
    node: str = ""  # what this machine is called in errors
    func_ram: int = 0  # bytes that one call may use; 0: no limit
    ram: int = 0  # bytes for all workers together; 0: what the machine has


class Span(NamedTuple):
    """Indices [lo, hi) of the job, all inside one batch."""

    batch: int
    lo: int
    hi: int


class Outcomes(NamedTuple):
    """Outcomes of [lo, hi), consecutive within their span."""

    cell: int
    batch: int
    lo: int
    hi: int
    kind: Kind  # RESULTS (values.load_results), RESULT or ERROR (one index)
    seconds: float  # that the calls took
    frames: Sequence[Frame]


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, and what it had not finished."""

    how: tuple[str, int]  # ("exit", status; -1: unknown), ("signal", number) or ("fork", errno)
    ready: bool  # it had loaded the function
    lost: tuple[Span, ...]  # dealt, not stolen, without outcome; in order of dealing
    # Indices of the stride it was in, all of them in `lost`; (i, i + 1): index i is to blame. None:
    # it was between two calls. Several: none is to blame, deal them with `careful=True`.
    running: Range | None


class WorkerEvents(Protocol):
    """What a `WorkerPool` tells its owner, from the loop, one call at a time.

    A worker is a number that is never used again.
    """

    def on_ready(self, worker: int, load_s: float) -> None:
        """It has the function and takes spans; load_s: 0 if it was forked from a template."""

    def on_load_failed(self, worker: int, frames: Sequence[Frame]) -> None:
        """The function cannot be loaded (values.load_error says why); the worker is gone."""

    def on_outcomes(self, worker: int, outcomes: Outcomes) -> None:
        """Calls have returned or raised."""

    def on_given_back(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """The worker will never run [lo, hi), lo < hi; it is still busy with what is before."""

    def on_settled(self, worker: int, cell: int, lo: int, hi: int) -> None:
        """The span of this cell is over; [lo, hi), often empty (lo >= hi), was not run."""

    def on_output(self, worker: int, stream: int, data: bytes) -> None:
        """Something was printed: stream 1 is stdout, 2 is stderr."""

    def on_death(self, worker: int, death: Death) -> None:
        """It ended by itself, or was killed by `kill`. Not told of workers ended by `end_lease`."""

    def on_memory(self, reading: Reading) -> None:
        """The memory of the node and of its workers; told while something runs."""

    def on_zygote_death(self) -> None:
        """No worker can be had any more (their deaths are told before): end the nodelet."""
