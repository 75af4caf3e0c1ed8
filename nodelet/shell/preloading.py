"""Whether blanks are forked from a process that has imported what jobs import. No event loop here.

In a loop of maps of which each has a function of its own, each map has fresh processes, which
import the same packages again. When two jobs in a row have taken long to load, a blank imports the
modules that both had and serves as a template without a function, from which the workers of later
jobs are forked. Only as long as all jobs are one program's: whoever knows that another's follow has
all of it forgotten. Jobs in other surroundings, which may mean other modules by the same names, get
blanks as ever; so do those with files or packages of their own, which imports might look at.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

import msgpack

from burla.nodelet.worker import control as c
from burla.nodelet.worker.pipes import Frame, Kind, Message, pack

IDLE_S = 60.0  # without a job: then its memory is worth more than what it has imported
IMPORT_S = 120.0  # for all that it is to import
JOB_VARIABLE = "BURLA_JOB_ID"  # in which all jobs differ
OFTEN = 2  # jobs in a row
OWN = "own"  # what the caller's own modules are attached as


class Phase(Enum):
    """What there is of the process."""

    NONE = auto()
    IMPORTING = auto()
    SERVING = auto()


class Preloading:
    """What the last jobs have imported, and the process that has it."""

    def __init__(self, kill: Callable[[int], None]) -> None:
        """Know nothing. `kill`: ends a worker."""
        self._kill = kill
        self._is_plain = False  # what the job imports depends on nothing that came with it
        self.jobs = 0  # so many have begun
        self._looks = False  # it is to look whether what it has imported is as it was
        self._settings = c.LoadSettings()  # of the last job,
        self._key: tuple[object, ...] = ()  # and what another must have in common with it
        self._told: Sequence[str] = ()  # modules that it took long to import
        self._names: tuple[str, ...] = ()  # that several jobs in a row did
        self._times = 0  # how many
        self._phase = Phase.NONE
        self._has: tuple[str, ...] = ()  # modules that the process has, or could not have
        self.worker: int | None = None  # its number
        self.asked: set[int] = set()  # workers it is to fork

    def begin(self, settings: c.LoadSettings) -> None:
        """Take that a job begins; end the process if that is of no use to it."""
        key, self._is_plain = _look_at(settings)
        is_same, self._key = key == self._key, key
        self._settings, self._told = settings, ()
        self.jobs += 1
        self._looks = True
        if not is_same:
            self.drop()
            self._times, self._has = 0, ()

    def learn(self, frames: Sequence[Frame]) -> None:
        """Take which modules a worker took long to import.

        Raises:
            ValueError: it does not say that.
        """
        if frames:
            try:
                word = c.decode(bytes(frames[0]))
            except (TypeError, ValueError) as error:
                raise ValueError(f"no modules: {error}") from None
            if not isinstance(word, c.Modules) or not _are_names(word.names):
                raise ValueError(f"no modules: {word}")
            self._told = word.names if self._is_plain else ()

    def end(self) -> bool:
        """Take that the job is over; return whether a process is to be made, a new one perhaps."""
        self.asked.clear()
        if not self._told:  # all that it needed was there, or is quick
            self._times = 0
            return False
        told = tuple(self._told)
        self._names = told if not self._times else _both(self._names, told)
        self._times += 1
        is_new = not set(self._names) <= set(self._has)
        return self._times >= OFTEN and is_new and self._phase is not Phase.IMPORTING

    def order(self, worker: int) -> list[Frame]:
        """Return what to send to a blank that is to be the process from now on."""
        has = tuple(dict.fromkeys((*self._has, *self._names)))
        self.drop()
        self.worker, self._phase, self._times, self._has = worker, Phase.IMPORTING, 0, has
        words = self._settings, c.Modules(list(self._has))
        return pack(Message(Kind.PRELOAD, frames=[c.encode(word) for word in words]))

    def serves(self) -> None:
        """Take that it has imported all."""
        self._phase = Phase.SERVING

    def source(self) -> int | None:
        """Return from which process a worker is to be forked; None: from none."""
        return self.worker if self._phase is Phase.SERVING and self._is_plain else None

    def is_worth_keeping(self) -> bool:
        """Return whether the next job may be quicker for what is known, or is there."""
        return bool(self._told) or self.worker is not None

    def ask(self, worker: int) -> None:
        """Take that it is to fork this one."""
        self.asked.add(worker)

    def looks(self) -> bool:
        """Return whether it is to look, now, whether what it has imported is as it was."""
        looks, self._looks = self._looks, False
        return looks

    def unfit(self) -> None:
        """End the process: a job has modules by names that it looked for. No other is made."""
        has = self._has
        self.drop()
        self._has = has

    def forget(self) -> None:
        """Forget all: other programs' jobs follow."""
        self.drop()
        self._told, self._times, self._has, self._key = (), 0, (), ()

    def drop(self) -> None:
        """End the process, if there is one."""
        if self.worker is not None:
            self._kill(self.worker)
            self.gone(self.worker)

    def gone(self, worker: int) -> None:
        """Take that a worker has ended; what the process could not import is not tried again."""
        self.asked.discard(worker)
        if worker == self.worker:
            if self._phase is Phase.SERVING:
                self._has = ()
            self.worker, self._phase = None, Phase.NONE

    # --- time ---

    def expire(self, jobs: int) -> None:
        """End the process if no job has begun since then."""
        if self.jobs == jobs:
            self.drop()

    def give_up(self, worker: int) -> None:
        """End the process if it imports still."""
        if self.worker == worker and self._phase is Phase.IMPORTING:
            self.drop()


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(type(name) is str for name in names)


def _both(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    others = set(other)
    return tuple(name for name in one if name in others)


def _look_at(settings: c.LoadSettings) -> tuple[tuple[object, ...], bool]:
    """Return what jobs must have in common to import the same; whether this one may at all.

    Own modules do not count: they are looked for when a function is loaded.
    """
    environment: Any = settings.environment
    attached = {name for *_, name in settings.blobs if name}
    with suppress(ValueError, TypeError, AttributeError):  # it is none: its worker says so
        environment = msgpack.unpackb(settings.environment)
        attached.update(map(str, environment.pop("attached", {})))
    variables: Mapping[str, str] = {**settings.variables, JOB_VARIABLE: ""}
    is_plain = all(name.partition("/")[0] == OWN for name in attached)
    return (environment, settings.packages, settings.func_cpu, variables), is_plain
