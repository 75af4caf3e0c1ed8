"""An autoscaler: makes machines for jobs whose wait would be long, deletes idle ones.

It looks at the machines of one provider every few seconds, asks the scheduler what jobs wait for
and how idle nodes are, and does what plan.py says, a step at a time: a step that fails does not
keep the others from being done. It may die at any time; whoever starts it again finds all.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from burla.protocol import messages as m
from burla.provisioning.core import plan
from burla.provisioning.core.machines import Machine, Provisioner, ProvisioningError, Shape, named
from burla.provisioning.core.plan import Limits, Order
from burla.transport.request import NoAnswer, NotTaken

BACKOFF_S = 60.0  # no machine is asked for so long after one failed; doubles
BACKOFF_MAX_S = 600.0
WHY_MAX = 500  # characters of what callers are told of machines
UNSEEN_S = 60.0  # a ready machine whose node the scheduler has not heard of for so long is idle
NO_SHAPE = Shape(0)  # no machine is made
PLAIN = m.Machines()  # as the cluster's file has them

Ask = Callable[[m.AskDemand], m.Demand]
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass
class Autoscaler:
    """Looks and acts; `look` and `make` may run in two threads."""

    name: str  # of its own for each provider of a cluster
    provisioner: Provisioner
    ask: Ask
    limits: Limits
    python: str  # minor version that new machines run
    boot_s: float  # from its creation to its first Hello; then a machine is given up
    gone: Callable[[Sequence[str]], None] = lambda names: None  # is told what will be deleted
    clock_s: Callable[[], float] = time.monotonic
    now_s: Callable[[], float] = time.time  # epoch time, for what expires
    _doing: str = ""  # for callers who wait
    _shape: Shape = NO_SHAPE  # of the next machine
    _told: tuple[str, Shape] = ("", NO_SHAPE)  # of these, to the scheduler
    _joined: frozenset[str] = frozenset()  # of those that are there: their nodes have said Hello
    _coming_since_s: dict[str, float] = field(default_factory=dict)
    _unseen_since_s: dict[str, float] = field(default_factory=dict)  # by the scheduler
    _deleted: frozenset[str] = frozenset()  # that are still there
    _trouble: str = ""
    _backoff_s: float = BACKOFF_S
    _pause_until_s: float = -float("inf")
    # of kinds that jobs want: who wants what cannot be had keeps nobody else from growing
    _paused: dict[m.Machines, tuple[float, str]] = field(default_factory=dict)  # until, and why
    _made_for: dict[str, m.Machines] = field(default_factory=dict)  # name -> like what
    _there: frozenset[str] = frozenset()  # names, at the last look
    _logged: str = ""

    def look(self) -> tuple[Order, ...]:
        """Delete what is not needed; return what machines to make now."""
        demand = self._say(self._deleted)
        there = self._attempt(self.provisioner.observe)
        if there is None:
            self._doing = "cannot list machines right now"
            orders: tuple[Order, ...] = ()
        else:
            names = {machine.name for machine in there}
            self._deleted &= names
            self._there = frozenset(names)
            if demand is not None:
                self._joined |= {node.name for node in demand.nodes}
            self._joined &= names
            # of which have joined, a silent scheduler may know more than we do
            known = plan.believed(there, names if demand is None else self._joined)
            self._attempt(lambda: self._delete_lost(known))
            orders = self._act(demand, known) if demand is not None else ()
        if (self._doing, self._shape) != self._told:
            self._say(self._deleted)
        return orders

    def make(self, orders: Sequence[Order]) -> None:
        """Make machines for jobs; may take minutes."""
        # what was made before was there at the last look, if it still is
        kept = {name: like for name, like in self._made_for.items() if name in self._there}
        self._made_for = kept
        for order in orders:
            wanted: dict[str, Any] = order.like.said()
            log.info("making %d machines%s", order.count, f" with {wanted}" if wanted else "")
            try:
                made = self.provisioner.create(order.count, grown=True, **wanted)
            except ProvisioningError as error:
                self._fail(order.like, str(error))
            else:
                self._made_for |= {machine.name: order.like for machine in made}
                log.info("made %s", named(machine.name for machine in made))

    def _fail(self, like: m.Machines, why: str) -> None:
        """Ask for no such machine for a while."""
        if like == PLAIN:
            self._back_off(why)
        else:
            self._log(f"no machine was made with {like.said()}: {why}")
            # another dict: a look may walk this one
            self._paused = {**self._paused, like: (self.clock_s() + BACKOFF_S, why)}

    def _act(self, demand: m.Demand, there: Sequence[Machine]) -> tuple[Order, ...]:
        self._attempt(lambda: self._delete_late(demand.nodes, there))
        self._attempt(lambda: self._delete_idle(demand.nodes, there))
        return self._attempt(lambda: self._missing(demand.wishes, there)) or ()

    # --- growing ---

    def _missing(self, wishes: Sequence[m.Wish], there: Sequence[Machine]) -> tuple[Order, ...]:
        if not self.limits.max_nodes:
            self._doing = ""
            return ()
        self._doing, self._shape = "cannot look up the machine type right now", NO_SHAPE
        self._shape = self.provisioner.shape()
        wanted, never = self._wanted(wishes)
        comes = [machine.name for machine in there if machine.state in plan.COMING]
        coming = Counter(self._made_for.get(name, PLAIN) for name in comes)
        lacking = plan.lacking(wanted, coming)
        # those that come count for what they were made for only
        growth = plan.grow(
            sum(lacking.values()) + len(comes), there, self.limits, self.provisioner.price_per_h()
        )
        count = growth.count if self.clock_s() >= self._pause_until_s else 0
        if comes or count:
            doing = f"machines on their way: {len(comes) + count}{_waits_for(there)}"
        else:
            doing = self._trouble if growth.count else growth.why
        self._doing = "; ".join(filter(None, (doing, named(never, 2)[:WHY_MAX])))
        return tuple(plan.orders(count, lacking))

    def _wanted(self, wishes: Sequence[m.Wish]) -> tuple[Counter[m.Machines], dict[str, None]]:
        """Return how many machines of each kind would help, and why others are not made."""
        now_s = self.clock_s()
        self._paused = {like: said for like, said in self._paused.items() if now_s < said[0]}
        wanted: Counter[m.Machines] = Counter()
        never: dict[str, None] = {}
        for wish in wishes:
            count = plan.wanted(wish, self._shape, self.python)
            like = self._heeded(wish.machines or PLAIN)
            why = self._why_not(like) if count else ""
            if why:
                never[why] = None
            elif count:
                wanted[like] += count
        return wanted, never

    def _heeded(self, like: m.Machines) -> m.Machines:
        """Return what of it this provider heeds."""
        heeded: dict[str, Any] = {k: v for k, v in like.said().items() if k in self._heeds()}
        return m.Machines(**heeded)

    def _heeds(self) -> tuple[str, ...]:
        return tuple(sorted(getattr(self.provisioner, "heeds", ())))

    def _why_not(self, like: m.Machines) -> str:
        """Return why there is none like it, without what a job has said: all callers see it."""
        if like == PLAIN:
            return ""
        if said := self._paused.get(like):
            return f"no machine right now where some jobs want them, trying again later: {said[1]}"
        why: str = getattr(self.provisioner, "why_not", _never)(**like.said())
        return why

    def _back_off(self, why: str) -> None:
        self._log(f"no machine was made: {why}")
        self._trouble = f"no machine right now, trying again later: {why}"
        self._pause_until_s = self.clock_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    # --- deleting ---

    def _delete_lost(self, there: Sequence[Machine]) -> None:
        """Delete what ended, failed or is past its time."""
        lost = plan.orphans(there, self.now_s())
        failed = [f"{machine.name}: {machine.why}" for machine in lost if machine.state == "failed"]
        if failed:
            self._back_off(named(failed, 1))
        self._delete(lost)

    def _delete_late(self, nodes: Sequence[m.NodeStatus], there: Sequence[Machine]) -> None:
        """Delete machines that never join; one whose node is connected has joined."""
        known, now_s = {node.name for node in nodes}, self.clock_s()
        coming = [
            machine
            for machine in there
            if machine.state in plan.COMING and machine.name not in known
        ]
        if any(machine.name in self._coming_since_s and machine.name in known for machine in there):
            self._backoff_s = BACKOFF_S  # one has joined
        self._coming_since_s = {
            machine.name: self._coming_since_s.get(machine.name, now_s) for machine in coming
        }
        late = [
            machine
            for machine in coming
            if now_s - self._coming_since_s[machine.name] >= self.boot_s
        ]
        if late:
            why = late[0].why or "it said nothing"
            self._back_off(f"{late[0].name} did not join within {self.boot_s:.0f} s ({why})")
        self._delete(late)

    def _delete_idle(self, nodes: Sequence[m.NodeStatus], there: Sequence[Machine]) -> None:
        idle_s = self._seen_idle_s(nodes) | self._unseen_idle_s(nodes, there)
        victims = plan.shrink(there, idle_s, self.limits)
        names = frozenset(machine.name for machine in victims)
        # a job may have got one of them just now: only what the scheduler leases no more is deleted
        again = self._say(self._deleted | names) if names else None
        if again is not None:
            busy = {node.name for node in again.nodes if not _is_retired(node)}
            idle = [machine for machine in victims if machine.name not in busy]
            self._deleted |= {machine.name for machine in idle}
            self._delete(idle)

    def _seen_idle_s(self, nodes: Sequence[m.NodeStatus]) -> dict[str, float]:
        """Return how long nodes have been idle; of several of one name, the busiest counts."""
        least: dict[str, float] = {}
        for node in nodes:
            least[node.name] = min(node.idle_s, least.get(node.name, node.idle_s))
        return {name: idle_s for name, idle_s in least.items() if idle_s > 0}

    def _unseen_idle_s(
        self, nodes: Sequence[m.NodeStatus], there: Sequence[Machine]
    ) -> dict[str, float]:
        """Return how long the scheduler has not known the nodes of machines that are ready."""
        known, now_s = {node.name for node in nodes}, self.clock_s()
        unseen = [
            machine.name
            for machine in there
            if machine.state == "ready" and machine.name not in known
        ]
        self._unseen_since_s = {name: self._unseen_since_s.get(name, now_s) for name in unseen}
        for_s = {name: now_s - since_s for name, since_s in self._unseen_since_s.items()}
        return {name: seconds for name, seconds in for_s.items() if seconds >= UNSEEN_S}

    def _delete(self, machines: Sequence[Machine]) -> None:
        ours = [machine for machine in machines if plan.is_ours(machine)]
        if ours:
            names = [machine.name for machine in ours]
            self._log(f"deleting {named(names)}")
            self.gone(names)
            self.provisioner.delete(ours)

    # --- talking ---

    def _say(self, retire: frozenset[str]) -> m.Demand | None:
        """Tell the scheduler what is done; return what it says, None if it is silent."""
        self._told = self._doing, self._shape
        shape, names = self._shape, tuple(sorted(retire))
        try:
            return self.ask(
                m.AskDemand(
                    *(self.name, self._doing, shape.cpus, shape.ram, names, shape.gpus),
                    self._heeds() if self.limits.max_nodes else (),
                )
            )
        except (NoAnswer, NotTaken, ProvisioningError) as error:
            self._log(f"cannot ask the scheduler: {error}")
            return None

    def _attempt(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except ProvisioningError as error:
            self._log(str(error))
            return None

    def _log(self, text: str) -> None:
        """Log what is new."""
        if text != self._logged:
            self._logged = text
            log.info("%s", text)


def _waits_for(machines: Sequence[Machine]) -> str:
    """Return in brackets what machines wait for that their provider has no room for yet."""
    whys = dict.fromkeys(m.why for m in machines if m.state == "creating" and m.why)
    return f" ({named(whys, 2)[:WHY_MAX]})" if whys else ""


def _never(**wanted: object) -> str:
    return ""


def _is_retired(node: m.NodeStatus) -> bool:
    return node.state is m.NodeState.LEAVING and node.idle_s > 0
