"""How a lease gets its workers: which load the function, which are forked, and when none can. Pure.

The first worker says how long loading took. Quick: the others load it too. Slow: it becomes the
template, from which the others are forked, unless it has threads that forbid it. Workers that end
before they are ready are told apart by when they were begun: one cause may end many of them.
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto

from burla.protocol.deaths import Death
from burla.protocol.messages import Kind

from .events import Died, WorkerState

SLOW_LOAD_S = 0.02  # about what four forks cost; slower functions are loaded once
LOAD_DEATHS_MAX = 3  # in a row, while loading: then the function is to blame


class Step(Enum):
    """How the next worker is made."""

    LOAD = auto()  # a blank loads the function
    FORK = auto()  # the template forks


class SpawnPolicy:
    """The workers of a lease that are not ready yet, and what became of those before them."""

    def __init__(self) -> None:
        """Want no worker yet."""
        self.template: int | None = None
        self.no_worker: tuple[Kind, Sequence[bytes]] | None = None  # why there can be none
        self._missing = 0  # wanted, and not begun
        self._loading = 0
        self._copying = 0
        self._use_template = True
        self._is_serving = False  # the template has said that it waits for orders to fork
        self._is_quick = False  # each worker loads the function itself
        self._deaths = 0  # in a row, each of workers begun after the last
        self._excused = 0  # workers still loading that were begun before the last of these deaths

    @property
    def unready(self) -> int:
        """How many workers are wanted and not ready."""
        return self._missing + self._loading + self._copying

    def may_want(self) -> bool:
        """Return whether it is worth asking for one more."""
        return self._deaths < LOAD_DEATHS_MAX

    def want(self, count: int) -> None:
        """Ask for so many more."""
        self._missing += count

    def steps(self) -> Iterator[Step]:
        """Yield how to make each of those that are missing, as far as that can be done now."""
        while self._missing and (step := self._next_step()) is not None:
            self._missing -= 1
            if step is Step.FORK:
                self._copying += 1
            else:
                self._loading += 1
            yield step

    def _next_step(self) -> Step | None:
        if self.template is not None:
            return Step.FORK if self._is_serving else None
        if self._is_quick or not self._use_template:
            return Step.LOAD
        return None if self._loading else Step.LOAD  # the first says how long it takes

    # --- what becomes of them ---

    def loaded(self, worker: int, load_s: float, may_fork: bool) -> bool:
        """Take one that has loaded the function; return whether it is the template from now on."""
        self._is_quick = self._is_quick or load_s < SLOW_LOAD_S or not may_fork
        is_free = self._use_template and self.template is None
        if self._is_quick or not is_free or self.unready <= 1:
            self.ready(WorkerState.LOADING)
            return False
        self._loading -= 1
        self._missing += 1  # it is no worker any more
        self.template = worker
        return True

    def ready(self, state: WorkerState) -> None:
        """Take one that is ready; `state`: which it was in."""
        self.leave(state)
        self._deaths = self._excused = 0

    def template_serves(self, worker: int) -> None:
        """Let the template fork from now on."""
        self._is_serving = worker == self.template

    def drop_template(self) -> None:
        """Have each worker load the function from now on."""
        self.template, self._is_serving, self._use_template = None, False, False

    def not_copied(self) -> None:
        """Ask again for one that the template, which is gone, was to fork."""
        if self._copying:
            self._copying -= 1
            self._missing += 1
        self.drop_template()

    def load_failed(self, frames: Sequence[bytes], others: bool) -> None:
        """Take that the function could not be loaded; `others`: workers are ready all the same."""
        if others:  # go on with those
            self._deaths = LOAD_DEATHS_MAX
        else:
            self.no_worker = (Kind.ERROR, frames)

    def died(self, event: Died, words: str, others: bool) -> None:
        """Take that one ended before it was ready; `words`: its last, `others`: are ready."""
        self.leave(event.state)
        if self._excused:  # it was begun before the last death, and may have been killed with it
            self._excused -= 1
            return
        self._excused = self.unready
        self._deaths += 1
        if self._deaths >= LOAD_DEATHS_MAX and not others:
            death = Death(
                *event.how,
                self._deaths,
                last_words=words,
                killed_for=event.killed_for,
                dump=event.dump,
                was_loading=True,
            )
            self.no_worker = (Kind.DEATH, [death.encode()])

    def all_gone(self) -> None:
        """Note that no worker is left that was ready: it is worth trying, whatever was before."""
        self._deaths = 0

    def renew(self) -> None:
        """Note that another job goes on with what is made: it is worth trying, too."""
        self._deaths = 0

    def leave(self, state: WorkerState) -> None:
        """Take that one is no longer made."""
        if state is WorkerState.COPYING:
            self._copying = max(0, self._copying - 1)
        else:
            self._loading = max(0, self._loading - 1)

    def snapshot(self) -> dict[str, object]:
        """Return the counts, for people."""
        return {
            "missing": self._missing,
            "loading": self._loading,
            "copying": self._copying,
            "template": self.template,
            "deaths": self._deaths,
        }
