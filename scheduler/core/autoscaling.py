"""What autoscalers say and are told: how much work waits that more machines could do. Pure.

The scheduler makes no machines. It tells how idle its nodes are and what jobs with `grow=True` wait
for, and tells the callers of those what autoscalers say that they do about it. Each autoscaler has
a name: a cluster may have machines of several providers.
"""

from collections.abc import Iterator
from itertools import islice

from msgspec import Struct, field

from burla.protocol import messages as m

from .job import Job
from .pending_reasons import Needs, needs_of
from .state import State
from .status import node_statuses

HEARD_S = 360.0  # what was said counts this long: `burla up` stops autoscalers for minutes
EXPECTED_S = 30.0  # after the scheduler's start; autoscalers ask every few seconds
AUTOSCALERS_MAX = 16
NOBODY = "nobody makes machines for this cluster: see [grow] of its file"
NOT_HERE = "; no autoscaler is running: `burla up` starts one if the cluster's file has [grow]"
NOT_ASKED = "; pass grow=True to get machines, or run `burla up` for those of the cluster's file"


class _Said(Struct, frozen=True):
    """What one autoscaler said last."""

    ask: m.AskDemand
    retire: frozenset[str]
    until_s: float


class Autoscalers(Struct):
    """What the scheduler believes about autoscalers; there may be none."""

    expected_s: float = 0.0  # until then one may be about to speak
    _said: dict[str, _Said] = field(default_factory=dict)  # by name
    _settled: set[bytes] = field(default_factory=set)  # jobs that know what of theirs is not heeded

    def ask(self, state: State, said: m.AskDemand, user: str) -> m.Demand:
        """Take what one says; return what it wants to know. Costs O(nodes + jobs).

        Raises:
            ValueError: there are too many of them.
        """
        if said.name not in self._said and len(self._said) >= AUTOSCALERS_MAX:
            raise ValueError(f"there are {AUTOSCALERS_MAX} autoscalers already")
        until_s = state.now_s + HEARD_S
        self._said[said.name] = _Said(said, frozenset(said.retire), until_s)
        self._retire(state)
        wishes = islice(_wishes(state), m.WISHES_MAX)
        return m.Demand(node_statuses(state, user), tuple(wishes))

    def expire(self, state: State) -> None:
        """Forget what was said too long ago; nodes that were about to be deleted are leased."""
        late = [name for name, said in self._said.items() if state.now_s >= said.until_s]
        for name in late:
            del self._said[name]
        if late:
            self._retire(state)

    def said_of(self, job: Job, state: State) -> str:
        """Return what the caller of a job that waits is told about machines."""
        if not job.spec.grow:
            return NOT_ASKED if self._said and not state.nodes else ""
        if not self._said:
            return NOT_HERE
        doing = [said.ask.doing for said in self._said.values() if said.ask.doing]
        return "".join(f"; {text}" for text in doing)

    def may_make(self, job: Job, now_s: float) -> bool:
        """Return whether a node that could run a job may be made; its Python is not known."""
        if not job.spec.grow:
            return False
        if now_s < self.expected_s and not self._said:
            return True
        return any(_fits(job, said.ask) for said in self._said.values())

    def tell_unheeded(self, state: State) -> None:
        """Tell callers once what of their wishes nobody heeds who makes machines."""
        self._settled &= state.jobs.keys()
        for job in state.jobs.values():
            wanted = job.spec.machines
            if wanted is None or job.id in self._settled or job.failed or job.is_away:
                continue
            makers = [said.ask for said in self._said.values() if said.ask.cpus]
            is_early = state.now_s < max(self.expected_s, job.opened_s + EXPECTED_S)
            if not makers and is_early:
                continue
            self._settled.add(job.id)
            heeded = {name for ask in makers for name in ask.heeds}
            if ignored := [name for name in wanted.said() if name not in heeded]:
                by = ", ".join(sorted(ask.name for ask in makers))
                why = f"it is not heeded by what makes machines here, {by}" if makers else NOBODY
                notice = f"without effect: {', '.join(ignored)} ({why})"
                state.tell(job, m.JobStatus(job.id, job.said, job.slots_said, notice))

    def _retire(self, state: State) -> None:
        """Lease nodes no more that are named, if they are idle; and all others again."""
        names = frozenset[str]().union(*(said.retire for said in self._said.values()))
        for node in state.nodes.values():
            is_idle = node.is_free() and node.warm is None
            retiring = node.name in names and (node.retiring or is_idle)
            if node.retiring and not retiring:
                state.marks.nodes[node.id] = None
            node.retiring = retiring


def _fits(job: Job, made: m.AskDemand) -> bool:
    ram = job.spec.func_ram
    if job.func_gpu > made.gpus:
        return False
    return job.spec.func_cpu <= made.cpus and (not made.ram or ram is None or ram <= made.ram)


def _wishes(state: State) -> Iterator[m.Wish]:
    nodes = [node for node in state.nodes.values() if not (node.leaving or node.retiring)]
    fitting: dict[Needs, bool] = {}
    for job in state.jobs.values():
        if job.spec.grow and not (job.failed or job.is_away):
            needs = needs_of(job)
            if needs not in fitting:
                fitting[needs] = any(node.slots(job) for node in nodes)
            yield _wish(job, fitting[needs], state.now_s)


def _wish(job: Job, fits: bool, now_s: float) -> m.Wish:
    work = job.work
    sent = work.batches.entered if work.total is None else work.total
    known_s = [lease.call_s for lease in work.leases.values() if lease.call_s]
    since_s = min((lease.since_s for lease in work.leases.values()), default=job.opened_s)
    return m.Wish(
        python=job.python,
        func_cpu=job.spec.func_cpu,
        func_ram=job.spec.func_ram,
        calls=max(0, sent - work.done.total),
        max_parallelism=job.spec.max_parallelism,
        slots=work.slots,
        call_s=sum(known_s) / len(known_s) if known_s else 0.0,
        waited_s=max(0.0, now_s - since_s),
        fits=fits,
        func_gpu=job.func_gpu,
        machines=job.spec.machines,
    )
