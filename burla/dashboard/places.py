"""Which clusters there are to look at, and what is kept of each while somebody looks."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from burla.dashboard.core.colours import Colours
from burla.dashboard.core.history import History

from .line import Line

LOOK_S = 2.0  # between two looks which clusters there are
JOBS_MAX = 64  # whose progress is kept for rates
JOB_POINTS_MAX = 300
PLACES_MAX = 64  # that are kept open at once


@dataclass(frozen=True)
class Place:
    """A cluster that can be looked at."""

    key: str  # in addresses of pages
    name: str  # for people
    address: str
    about: str = ""
    is_meant: bool = False  # it is named, or in use: it is shown first
    why_gone: Callable[[], str | None] = lambda: None


@dataclass
class Watched:
    """A cluster at which somebody looks, or has looked."""

    place: Place
    line: Line
    colours: Colours = field(default_factory=Colours)
    history: History = field(default_factory=History)
    jobs: OrderedDict[str, History] = field(default_factory=OrderedDict)
    is_sampled: bool = False  # it has answered: charts go on while nobody looks

    def history_of(self, job: str) -> History:
        """Return what was counted of a job."""
        found = self.jobs.pop(job, None) or History(JOB_POINTS_MAX)
        self.jobs[job] = found  # the one that was looked at last is last
        while len(self.jobs) > JOBS_MAX:
            self.jobs.popitem(last=False)
        return found


class Places:
    """All clusters that were found."""

    def __init__(self, find: Callable[[], list[Place]]) -> None:
        """Look by `find`: the cluster that is meant first."""
        self._find = find
        self._lock = threading.Lock()
        self._found: list[Place] = []
        self._looked_s = float("-inf")
        self._watched: OrderedDict[str, Watched] = OrderedDict()

    def all(self) -> list[Place]:
        """Return which clusters there are."""
        with self._lock:
            if time.monotonic() > self._looked_s + LOOK_S:
                self._found = self._find()
                self._looked_s = time.monotonic()
            return list(self._found)

    def watch(self, key: str) -> Watched | None:
        """Return one of them, also one that was there before; None: there is none."""
        places = {place.key: place for place in self.all()}
        with self._lock:
            known = self._watched.get(key)
            place = places.get(key)
            if known is not None and place in (None, known.place):
                self._watched.move_to_end(key)
                return known
            if place is None:
                return None
            if known is not None:  # another one of this name
                known.line.close()
            found = Watched(place, Line(place.address, place.why_gone))
            self._watched[key] = found
            while len(self._watched) > PLACES_MAX:
                self._watched.popitem(last=False)[1].line.close()
            return found

    def sampled(self) -> list[Watched]:
        """Return those that are asked again and again for charts."""
        with self._lock:
            return [watched for watched in self._watched.values() if watched.is_sampled]

    def close(self) -> None:
        """Hang up everywhere."""
        for watched in self._watched.values():
            watched.line.close()
