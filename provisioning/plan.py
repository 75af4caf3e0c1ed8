"""How many machines there should be: what to create, and what to give up. Pure.

Nothing is ever given up that does not carry our label; what asks is `machines.Machine`, which a
provider makes from labelled ones only, and `is_ours` looks again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .machines import Machine

LONG_WAIT_S = 60.0  # grown machines take about this long to come: a shorter wait is not helped
MANAGED = "burla-managed"
CLUSTER = "burla-cluster"
ALIVE = ("creating", "joining", "ready")


@dataclass(frozen=True)
class Demand:
    """What jobs that may grow the cluster wait for."""

    wait_s: float  # until the last of their inputs is done, with the nodes there are
    calls: int  # that could run at once beyond those that do
    slots_per_node: int  # of a node that would be made


@dataclass(frozen=True)
class Limits:
    """What growing and shrinking must keep to."""

    max_nodes: int
    max_cost_per_h: float
    idle_s: float = 600.0
    grown_idle_s: float = 60.0


@dataclass(frozen=True)
class Growth:
    """How many machines to create now, and why not more."""

    count: int
    why: str = ""


def alive(machines: Iterable[Machine]) -> list[Machine]:
    """Return those that are nodes, or on their way to be."""
    return [machine for machine in machines if machine.state in ALIVE]


def missing(standing: int, machines: Iterable[Machine]) -> int:
    """Return how many machines of those that shall stand are not there."""
    return max(0, standing - sum(not machine.grown for machine in alive(machines)))


def grow(demand: Demand, machines: Sequence[Machine], limits: Limits, price_per_h: float) -> Growth:
    """Return how many machines to add for jobs that wait.

    Args:
        demand: of all jobs that asked for it.
        machines: all that there are; those that are on their way count.
        limits: are never exceeded.
        price_per_h: of one more.
    """
    if demand.wait_s < LONG_WAIT_S or demand.calls < 1:
        return Growth(0, "the wait is short")
    there = alive(machines)
    coming = sum(machine.state != "ready" for machine in there)
    useful = math.ceil(demand.calls / max(1, demand.slots_per_node)) - coming
    # twice as many machines halve the wait; more than bring it down to the time they take to come
    # would only come too late
    ready = max(1, len(there) - coming)
    helpful = math.ceil(ready * demand.wait_s / LONG_WAIT_S) - ready - coming
    wanted = min(useful, helpful)
    if wanted < 1:
        return Growth(0, "enough are on their way")
    room = limits.max_nodes - len(there)
    spent = sum(machine.cost_per_h for machine in there)
    affordable = wanted
    if price_per_h > 0:
        affordable = math.floor(min(wanted, (limits.max_cost_per_h - spent) / price_per_h + 1e-9))
    count = max(0, min(wanted, room, affordable))
    if count < wanted and room <= affordable:
        return Growth(count, f"max_nodes is {limits.max_nodes}")
    if count < wanted:
        return Growth(count, f"max_cost_per_h is {limits.max_cost_per_h:g}")
    return Growth(count)


def shrink(
    machines: Sequence[Machine],
    idle_since_s: Mapping[str, float],
    standing: int,
    limits: Limits,
    now_s: float,
) -> list[Machine]:
    """Return the machines that nobody has used for long enough, those made for jobs first.

    Args:
        machines: all that there are.
        idle_since_s: name -> since when it serves nobody; a busy one is not in it.
        standing: how many shall stay however idle they are.
        limits: say how long is long enough.
        now_s: on the same clock as `idle_since_s`.
    """

    def is_idle(machine: Machine) -> bool:
        since_s = idle_since_s.get(machine.name)
        most_s = limits.grown_idle_s if machine.grown else limits.idle_s
        return since_s is not None and now_s - since_s >= most_s

    there = alive(machines)
    grown = [machine for machine in there if machine.grown and is_idle(machine)]
    others = [machine for machine in there if not machine.grown]
    spare = max(0, len(others) - standing)
    return grown + [machine for machine in others if is_idle(machine)][:spare]


def orphans(machines: Iterable[Machine], now_s: float) -> list[Machine]:
    """Return machines of ours that nobody needs any more: ended, failed, or past their time."""
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
