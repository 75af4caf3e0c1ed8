"""How many machines there should be: what to create, and what to give up. Pure.

Nothing is ever given up that does not carry our label; what asks is `machines.Machine`, which a
provider makes from labelled ones only, and `is_ours` looks again.
"""

import hashlib
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from burla.protocol.messages import Machines, Wish

from .machines import Machine, Shape

LONG_WAIT_S = 60.0  # a machine takes about this long to come: a shorter wait is not helped
MANAGED = "burla-managed"
CLUSTER = "burla-cluster"
MADE_BY = "burla-version"
COMING = ("creating", "joining")
ALIVE = (*COMING, "ready")
DRAINING = "draining"  # of a machine that is "ending": why; said by itself
ROUNDING = 1e-9  # of sums of prices


@dataclass(frozen=True)
class Limits:
    """What growing and shrinking must keep to."""

    max_nodes: int
    max_cost_per_h: float | None  # None: any
    keep: int = 0  # machines that stay however idle they are
    idle_s: float = 600.0
    grown_idle_s: float = 60.0


@dataclass(frozen=True)
class Growth:
    """How many machines to create now, and why not more."""

    count: int
    why: str = ""


@dataclass(frozen=True)
class Order:
    """Machines that are to be made now."""

    count: int
    like: Machines  # as the jobs want them that they are for


def alive(machines: Iterable[Machine]) -> list[Machine]:
    """Return those that are nodes, or on their way to be."""
    return [machine for machine in machines if machine.state in ALIVE]


def paid_for(machines: Iterable[Machine]) -> list[Machine]:
    """Return those that cost money, whatever they are good for: all but those that have ended."""
    return [machine for machine in machines if machine.state != "ended"]


def believed(machines: Iterable[Machine], joined: Container[str]) -> list[Machine]:
    """Return machines as they are known to be: one whose node has joined is ready.

    What runs on a machine can write what the machine says of itself; until its node has joined no
    job runs there.

    Args:
        machines: as their provider lists them.
        joined: names of machines whose nodes have said Hello.
    """
    return [
        replace(machine, state="ready", why="")
        if machine.says_so and machine.name in joined
        else machine
        for machine in machines
    ]


def doubtful(machines: Iterable[Machine]) -> list[Machine]:
    """Return those that say of themselves that they are no good; jobs could have said so."""
    return [m for m in machines if m.says_so and m.state in ("failed", "ending")]


def drained(machines: Iterable[Machine]) -> list[Machine]:
    """Return those that run, and say that they serve nobody any more."""
    return [m for m in doubtful(machines) if m.state == "ending" and m.why != DRAINING]


def missing(standing: int, machines: Iterable[Machine]) -> int:
    """Return how many machines of those that shall stand are not there.

    One that drains runs, and is paid for: it counts until it is gone.
    """
    there = [machine for machine in machines if machine.state in ALIVE or machine.says_so]
    return max(
        0, standing - sum(not machine.grown and machine.state != "failed" for machine in there)
    )


def stamp(version: str, python: str, packages: Sequence[str] = ()) -> str:
    """Return what tells machines of one burla, Python and packages from others, as a label."""
    text = f"{version}-py{python}"
    if packages:
        text += f"-{hashlib.sha256(repr(sorted(packages)).encode()).hexdigest()[:12]}"
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def stale(machines: Iterable[Machine], wanted: str) -> list[Machine]:
    """Return the nodes of ours that another burla has made; those made for jobs last.

    Args:
        machines: all that there are.
        wanted: `stamp` of this one.
    """
    found = [m for m in alive(machines) if is_ours(m) and m.labels.get(MADE_BY) != wanted]
    return sorted(found, key=lambda machine: machine.grown)


def wanted(wish: Wish, shape: Shape, python: str) -> int:
    """Return how many more machines would help a job whose wait is long.

    More than bring its wait down to `LONG_WAIT_S` would come too late. How long a job
    lasts that no machine has served yet is not known: one machine will tell.

    Args:
        wish: of the job.
        shape: of a machine that would be made.
        python: minor version that it would run.
    """
    each = 0
    if wish.python == python:
        each = shape.slots(wish.func_cpu, wish.func_ram, wish.func_gpu)
    calls = min(wish.calls, wish.max_parallelism or wish.calls) - wish.slots
    if not each or calls < 1:
        return 0
    if not wish.slots:
        return int(not wish.fits or wish.waited_s >= LONG_WAIT_S)
    if not wish.call_s and wish.waited_s < LONG_WAIT_S:
        return 0  # its function may still be loading
    # while no call has ended, the calls are taken to last for as long as they have
    work_s = wish.calls * (wish.call_s or wish.waited_s)
    slots = min(calls, work_s / LONG_WAIT_S - wish.slots)
    return max(0, math.ceil(slots / each))


def grow(
    wanted: int, machines: Sequence[Machine], limits: Limits, price_per_h: float | None
) -> Growth:
    """Return how many machines to add.

    Args:
        wanted: how many more would help, for all jobs.
        machines: all that there are; those that are on their way count as added.
        limits: are never exceeded.
        price_per_h: of one more; None: not known.
    """
    there = paid_for(machines)
    wanted -= sum(machine.state in COMING for machine in there)
    if wanted < 1:
        return Growth(0)
    room = limits.max_nodes - len(there)
    affordable: float = wanted
    if limits.max_cost_per_h is not None:
        if price_per_h is None:
            return Growth(0, "the price of a machine is not set (grow.prices)")
        spent = sum(machine.cost_per_h for machine in there)
        if price_per_h > 0:
            affordable = (limits.max_cost_per_h - spent) / price_per_h + ROUNDING
    count = max(0, math.floor(min(wanted, room, affordable)))
    if count == wanted:
        return Growth(count)
    limit = f"grow.max_nodes = {limits.max_nodes}"
    if affordable < room:
        limit = f"grow.max_cost_per_h = {limits.max_cost_per_h:g}"
    return Growth(count, f"the cluster is at its limit ({limit})")


def lacking(wanted: Mapping[Machines, int], coming: Mapping[Machines, int]) -> dict[Machines, int]:
    """Return how many of each kind are wanted and not on their way; none of another kind counts."""
    left = {like: count - coming.get(like, 0) for like, count in wanted.items()}
    return {like: count for like, count in left.items() if count > 0}


def orders(count: int, lacking: Mapping[Machines, int]) -> Iterator[Order]:
    """Yield what to make of what is lacking, `count` in all."""
    for like, most in lacking.items():
        if now := min(count, most):
            count -= now
            yield Order(now, like)


def shrink(
    machines: Sequence[Machine], idle_s: Mapping[str, float], limits: Limits
) -> list[Machine]:
    """Return the machines that were idle for long enough, those made for jobs first.

    Args:
        machines: all that there are.
        idle_s: name -> for how long it has been idle; a busy one is not in it.
        limits: say how long is long enough.
    """

    def is_idle(machine: Machine) -> bool:
        most_s = limits.grown_idle_s if machine.grown else limits.idle_s
        return idle_s.get(machine.name, -1.0) >= most_s

    there = [machine for machine in machines if machine.state == "ready"]
    spare = max(0, len(there) - limits.keep)
    return sorted(filter(is_idle, there), key=lambda machine: not machine.grown)[:spare]


def orphans(machines: Iterable[Machine], now_s: float) -> list[Machine]:
    """Return machines of ours that are no longer needed: ended, failed, or past their time."""
    return [
        machine
        for machine in machines
        if is_ours(machine)
        and (
            machine.state in ("ended", "failed")
            or (machine.expires_s is not None and machine.expires_s <= now_s)
        )
    ]


def is_ours(machine: Machine) -> bool:
    """Return whether a machine carries our label; others are never touched."""
    return machine.labels.get(MANAGED) == "true"
