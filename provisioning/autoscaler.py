"""The autoscaler: makes machines for jobs whose wait would be long, deletes those that nobody uses.

A daemon beside the scheduler, because the library of a cloud blocks. Every few seconds it asks the
scheduler what jobs wait for and how idle its nodes are, looks which machines there are, and does
what plan.py says. It knows nothing that it could not see again: it may die at any time.
"""

import argparse
import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from burla.wire import daemon
from burla.wire import messages as m
from burla.wire.asking import NoAnswer, NotTaken

from . import plan, state
from .cluster import Cluster
from .machines import Machine, Provisioner, ProvisioningError, Shape, named
from .plan import Limits
from .providers import Providers

LOOK_S = 5.0  # between two looks; the scheduler forgets what we said after six of them
BACKOFF_S = 60.0  # no machine is asked for so long after one failed; doubles
BACKOFF_MAX_S = 600.0

NO_SHAPE = Shape(0)  # no machine is made

Ask = Callable[[m.AskDemand], m.Demand]
log = logging.getLogger(__name__)


@dataclass
class Autoscaler:
    """Looks and acts; `look` and `make` may run in two threads."""

    provisioner: Provisioner
    ask: Ask
    limits: Limits
    python: str  # minor version that new machines run
    boot_s: float  # from its creation to its first Hello; then a machine is given up
    clock_s: Callable[[], float] = time.monotonic
    now_s: Callable[[], float] = time.time  # epoch time, for what expires
    _doing: str = ""  # for callers who wait
    _shape: Shape = NO_SHAPE  # of the next machine
    _told: tuple[str, Shape] = ("", NO_SHAPE)  # of these, to the scheduler
    _coming_since_s: dict[str, float] = field(default_factory=dict)
    _unseen_since_s: dict[str, float] = field(default_factory=dict)  # by the scheduler
    _deleted: frozenset[str] = frozenset()  # that are still there
    _trouble: str = ""
    _backoff_s: float = BACKOFF_S
    _pause_until_s: float = -float("inf")

    def look(self) -> int:
        """Delete what nobody needs; return how many machines to make now."""
        count = 0
        try:
            try:
                there = self._delete_lost(self.provisioner.observe())
                demand = self._say(self._deleted)
                count = self._missing(demand.wishes, there)
                self._delete_idle(demand.nodes, there)
            except ProvisioningError as error:
                log.warning("%s", error)
                self._doing = f"machines cannot be made or seen now: {error}"
            if (self._doing, self._shape) != self._told:
                self._say(self._deleted)
        except (NoAnswer, NotTaken) as error:
            log.warning("the scheduler: %s", error)
            return 0
        return count

    def make(self, count: int) -> None:
        """Make machines for jobs; may take minutes."""
        log.info("making %d machines", count)
        try:
            made = self.provisioner.create(count, grown=True)
        except ProvisioningError as error:
            self._fail(str(error))
            return
        log.info("made %s", named(machine.name for machine in made))
        if len(made) == count:
            self._backoff_s = BACKOFF_S

    # --- growing ---

    def _missing(self, wishes: Sequence[m.Wish], there: Sequence[Machine]) -> int:
        self._shape = self.provisioner.shape() if self.limits.max_nodes else NO_SHAPE
        wanted = sum(plan.wanted(wish, self._shape, self.python) for wish in wishes)
        price = self.provisioner.price_per_h()
        growth = plan.grow(wanted, there, self.limits, price)
        coming = sum(machine.state in plan.COMING for machine in there)
        pausing = self.clock_s() < self._pause_until_s
        if not self.limits.max_nodes:
            self._doing = "no machines are made for jobs here: grow.max_nodes is 0"
        elif coming or (growth.count and not pausing):
            self._doing = f"machines on their way: {coming + growth.count * (not pausing)}"
        else:
            self._doing = self._trouble if pausing else growth.why
        return 0 if pausing else growth.count

    def _fail(self, why: str) -> None:
        log.warning("no machine: %s", why)
        self._trouble = f"no machine can be had now: {why}"
        self._pause_until_s = self.clock_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    # --- deleting ---

    def _delete_lost(self, machines: Sequence[Machine]) -> list[Machine]:
        """Delete what ended, failed, is past its time or never joins; return the others."""
        self._deleted &= {machine.name for machine in machines}
        now_s = self.clock_s()
        coming = [machine for machine in machines if machine.state in plan.COMING]
        since = {x.name: self._coming_since_s.get(x.name, now_s) for x in coming}
        self._coming_since_s = since
        late = [x for x in coming if plan.is_ours(x) and now_s - since[x.name] >= self.boot_s]
        lost = plan.orphans(machines, self.now_s())
        for machine in late:
            why = f"it has not joined within {self.boot_s:.0f} s"
            self._fail(f"{machine.name}: {why} ({machine.why or 'it said nothing'})")
        for machine in lost:
            if machine.state == "failed":
                self._fail(f"{machine.name}: {machine.why}")
        self._delete([*lost, *late])
        return [machine for machine in machines if machine not in lost and machine not in late]

    def _delete_idle(self, nodes: Sequence[m.NodeStatus], there: Sequence[Machine]) -> None:
        victims = plan.shrink(there, self._idle_s(nodes, there), self.limits)
        names = frozenset(machine.name for machine in victims)
        if not names:
            return
        # a job may have got one of them just now: only what the scheduler leases no more is deleted
        said = {node.name: node for node in self._say(self._deleted | names).nodes}
        idle = [x for x in victims if x.name not in said or _is_retired(said[x.name])]
        self._delete(idle)
        self._deleted |= {machine.name for machine in idle}

    def _idle_s(
        self, nodes: Sequence[m.NodeStatus], there: Sequence[Machine]
    ) -> Mapping[str, float]:
        """Return how long each machine has served nobody; busy ones are not in it."""
        known = {node.name: node.idle_s for node in nodes}
        now_s = self.clock_s()
        unseen = [x.name for x in there if x.state == "ready" and x.name not in known]
        self._unseen_since_s = {name: self._unseen_since_s.get(name, now_s) for name in unseen}
        idle = {name: idle_s for name, idle_s in known.items() if idle_s > 0}
        return idle | {name: now_s - since_s for name, since_s in self._unseen_since_s.items()}

    def _delete(self, machines: Sequence[Machine]) -> None:
        ours = [machine for machine in machines if plan.is_ours(machine)]
        if ours:
            log.info("deleting %s", named(machine.name for machine in ours))
            self.provisioner.delete(ours)

    def _say(self, retire: frozenset[str]) -> m.Demand:
        self._told = self._doing, self._shape
        shape, names = self._shape, tuple(sorted(retire))
        return self.ask(m.AskDemand(self._doing, shape.cpus, shape.ram, names))


def _is_retired(node: m.NodeStatus) -> bool:
    return node.state is m.NodeState.LEAVING and node.idle_s > 0


class Stopping(ProvisioningError):
    """This process is about to end: nothing new is begun."""


def of_cluster(cluster: Cluster) -> Autoscaler:
    """Return the autoscaler of a cluster that is up."""
    config, fleets = cluster.config, cluster.fleets()
    grow = config.grow
    limits = Limits(
        grow.max_nodes,
        grow.max_cost_per_h,
        grow.keep,
        grow.idle_min * 60,
        grow.grown_idle_min * 60,
    )
    return Autoscaler(
        Providers({name: fleet.provisioner for name, fleet in fleets.items()}, config.grows_by),
        cluster.head.ask,
        limits,
        config.python,
        max(fleet.boot_s for fleet in fleets.values()),
    )


async def serve(autoscaler: Autoscaler, look_s: float = LOOK_S) -> None:
    """Look and act until cancelled. What blocks runs in threads."""
    making: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        while True:
            count = await asyncio.to_thread(autoscaler.look)
            if count and (making is None or making.done()):
                making = group.create_task(asyncio.to_thread(autoscaler.make, count))
            await asyncio.sleep(look_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the autoscaler of a cluster that `burla up` knows; return the exit code."""
    parser = argparse.ArgumentParser(prog="burla-autoscaler", description=__doc__)
    parser.add_argument("--cluster", required=True, help="its name")
    parser.add_argument("--look", type=float, default=LOOK_S, help="seconds between two looks")
    options = parser.parse_args(arguments)
    daemon.prepare("burla-autoscaler")
    known = state.read(options.cluster)
    if known is None:
        print(f"burla-autoscaler: there is no cluster {options.cluster!r}", file=sys.stderr)
        return 1
    stopping = threading.Event()

    def pause(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Stopping("the autoscaler is about to end")

    async def run() -> None:
        try:
            await serve(of_cluster(Cluster(known, pause=pause)), options.look)
        finally:
            stopping.set()

    print("looking", flush=True)
    return daemon.run(run)


if __name__ == "__main__":
    sys.exit(main())
