"""An autoscaler with a scripted scheduler and machines of a stand-in for Compute Engine."""

from dataclasses import dataclass, field
from typing import Any

from fake_gce import FakeGce

from burla.protocol import messages as m
from burla.provisioning.autoscaler import Autoscaler
from burla.provisioning.config import parse
from burla.provisioning.core.plan import Limits
from burla.provisioning.gce.provisioner import Gce
from burla.transport.request import NoAnswer

LONG = m.Wish("3.11", 1, None, 10_000, None, 8, 60.0, 60.0, fits=True)
BOOT_S = 300.0
FREE = m.NodeState.FREE


@dataclass
class Told:
    """What the scheduler would say, and what it was told."""

    wishes: list[m.Wish] = field(default_factory=list)
    idle_s: dict[str, float] = field(default_factory=dict)  # name of a node -> its idle time
    leased_meanwhile: set[str] = field(default_factory=set)  # between the two questions of a look
    asked: list[m.AskDemand] = field(default_factory=list)
    is_silent: bool = False
    gone: list[str] = field(default_factory=list)  # names that were told as deleted

    def ask(self, said: m.AskDemand) -> m.Demand:
        if self.is_silent:
            raise NoAnswer("no answer within 5 s")
        self.asked.append(said)
        return m.Demand(
            tuple(self._node(name, said.retire) for name in self.idle_s), tuple(self.wishes)
        )

    def _node(self, name: str, retire: tuple[str, ...]) -> m.NodeStatus:
        state, idle_s = m.NodeState.FREE, self.idle_s[name]
        if name in retire:
            taken = name in self.leased_meanwhile
            state, idle_s = (m.NodeState.LEASED, 0.0) if taken else (m.NodeState.LEAVING, idle_s)
        return m.NodeStatus(name, "uid", 8, 32 << 30, "3.11", state, "", idle_s)


@dataclass
class Site:
    """All of it, with a clock."""

    gce: FakeGce
    told: Told
    autoscaler: Autoscaler
    clock: list[float]

    def look(self) -> int:
        orders = self.autoscaler.look()
        if orders:
            self.autoscaler.make(orders)
        return sum(order.count for order in orders)

    def join(self, *names: str) -> None:
        """Let machines say that they are ready, and the scheduler know their nodes."""
        for name in names or self.gce.alive():
            self.gce.vms[name].guest["state"] = "ready"
            self.told.idle_s.setdefault(name, 0.0)

    def doing(self) -> str:
        """Return what callers are told after a look."""
        self.look()
        return self.told.asked[-1].doing


def make(gce: FakeGce, endpoint: str, limits: Limits | None = None, **grow: Any) -> Site:
    where = {"project": "p", "zones": ["us-central1-a", "us-central1-b"], "endpoint": endpoint}
    config = parse({"name": "lab", "gce": where, "grow": {"max_nodes": 6} | grow})
    provisioner = Gce(config, "tcp://10.0.0.1:7270", lambda name: None, pause=lambda s: None)
    told, clock = Told(), [0.0]
    limits = Limits(config.grow.max_nodes, config.grow.max_cost_per_h) if limits is None else limits
    autoscaler = Autoscaler(
        "lab/gce",
        provisioner,
        told.ask,
        limits,
        "3.11",
        BOOT_S,
        gone=told.gone.extend,
        clock_s=lambda: clock[0],
    )
    return Site(gce, told, autoscaler, clock)
