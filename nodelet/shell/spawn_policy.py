"""How a lease gets its workers: which load the function, and which are forked from a template.

Decides only. The first worker says how long loading took. Quick: the others load it too. Slow: it
becomes the template, from which the others are forked, unless it has threads that forbid it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from burla.nodelet.worker.pipes import Frame

from .worker_handle import State, WorkerHandle

SLOW_LOAD_NS = 20_000_000  # about what four forks cost; slower functions are loaded once


class Step(Enum):
    """How the next worker is made."""

    LOAD = auto()  # a blank loads the function
    COPY = auto()  # the template forks


@dataclass(slots=True)
class SpawnPolicy:
    """The workers of a lease: how many are wanted, and how they come about."""

    load: list[Frame]  # the LOAD message
    use_template: bool
    wanted: int = 0  # workers in all
    is_quick: bool = False  # each worker loads the function itself
    template: WorkerHandle | None = None
    template_serves: bool = False  # it has said that it waits for orders to fork
    is_ending: bool = False

    def next_step(self, links: Iterable[WorkerHandle]) -> Step | None:
        """Return how to make the next worker; None: none is missing, or it is to be waited for."""
        states = [link.state for link in links]
        made = sum(state in (State.LOADING, State.COPYING, State.READY) for state in states)
        if self.is_ending or made >= self.wanted:
            return None
        if self.template is not None:
            return Step.COPY if self.template_serves else None
        if self.is_quick or not self.use_template:
            return Step.LOAD
        return None if State.LOADING in states else Step.LOAD  # the first says how long it takes

    def take_template(
        self, link: WorkerHandle, load_ns: int, may_fork: bool, links: Iterable[WorkerHandle]
    ) -> bool:
        """Take note of how long loading took; return whether `link` is the template from now on."""
        self.is_quick = self.is_quick or load_ns < SLOW_LOAD_NS or not may_fork
        if self.is_quick or not self.use_template or self.template is not None or link.dealt:
            return False
        if self.wanted - sum(one.state == State.READY for one in links) <= 1:
            return False
        link.state = State.TEMPLATE
        self.template = link
        return True

    def drop_template(self) -> None:
        """Have each worker load the function from now on."""
        self.template, self.template_serves, self.use_template = None, False, False
