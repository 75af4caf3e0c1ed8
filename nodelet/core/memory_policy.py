"""How many workers of a lease may run, so that the node's memory lasts. Pure policy.

Below a low mark of available memory no further call is begun beside the running ones. Below a
critical mark one worker is killed before the kernel does it: idle ones that hold much, else, of
those that use much, the one whose call began last. Its input is tried again with fewer neighbours,
at last alone. When memory is there again, slots come back one by one. With `func_ram` a worker that
uses more is killed at once.
"""

from collections.abc import Iterator

from burla.protocol.deaths import Death, OutOfMemoryFigures
from burla.protocol.ranges import Ranges

from .cells import Worker
from .dispatcher import Dispatcher
from .events import Ending, Reading

GB = 1 << 30  # bytes
LOW_SHARE, LOW_MAX = 0.10, GB  # of the node's memory: room for what the running calls still take
CRITICAL_SHARE, CRITICAL_MAX = 0.05, GB // 2  # the kernel kills, or swaps, soon below this
GUILTY_SHARE = 0.01  # of the node's memory: who uses less is not why it runs out
BIG_SHARE = 0.5  # of the node's memory: a lone call that uses it has itself to blame
RISE_S, RISE_MAX_S = 1.0, 32.0  # between two steps up; twice as long after each kill
DEATHS_MAX = 3  # of one index: then it is named
FEWER = 4  # an index killed again and again gets so many times fewer neighbours each time
OOM_S = 1.0  # between the kernel's count and our hearing of the death, on a machine that crawls
KILLED = ("signal", 9)  # as the kernel does it, and we


def low(total: int) -> int:
    """Return the bytes of available memory below which no more calls are begun."""
    return int(min(LOW_SHARE * total, LOW_MAX))


def critical(total: int) -> int:
    """Return the bytes of available memory below which a worker is killed."""
    return int(min(CRITICAL_SHARE * total, CRITICAL_MAX))


class MemoryPolicy:
    """What the memory of the node allows one lease; sets the slots of its dispatcher."""

    def __init__(
        self, dispatcher: Dispatcher, func_ram: int | None, deaths_max: int = DEATHS_MAX
    ) -> None:
        """Start with all slots of `dispatcher`.

        Args:
            dispatcher: of the lease.
            func_ram: bytes that one call may use; None: no limit.
            deaths_max: of one index, for which memory is not to blame.
        """
        self._deaths_max = deaths_max
        self._dispatcher = dispatcher
        self._func_ram = func_ram
        self._last: Reading | None = None
        self._used: dict[int, int] = {}  # worker -> what it used when it was last seen alive
        self._least = 0  # available, in the last two readings
        self._oom_until_s = 0.0  # SIGKILLs until then are the kernel's, for memory
        self._doomed: dict[int, OutOfMemoryFigures] = {}  # workers that are being killed
        self._kills: dict[int, int] = {}  # index that is tried again -> how often it was killed
        self._deaths: dict[int, int] = {}  # per index, those for which memory is not to blame
        self._lone: dict[int, int] = {}  # per index, kills while it ran alone
        self._rise_s = 0.0  # when the next slot may come back
        self._patience_s = RISE_S

    # --- what is seen ---

    def look(self, reading: Reading, open_: Ranges, now_s: float) -> Iterator[tuple[int, str]]:
        """Take a reading; yield the workers to kill, and why. `open_`: not run yet."""
        before = self._last or reading
        self._last, self._least = reading, min(before.available, reading.available)
        self._used |= {number: used for number, used in reading.used.items() if used}
        if reading.oom_kills:
            self._oom_until_s = now_s + OOM_S
        for index in [i for i in self._kills if not open_.covers(i, i + 1)]:
            del self._kills[index]
        yield from self._enforce(reading)
        if self._is_short(reading):
            self._slow_down(now_s)
            if reading.available < critical(reading.total) and not self._doomed:
                yield from self._relieve(reading)
        else:
            self._rise(reading, now_s)

    def _enforce(self, reading: Reading) -> Iterator[tuple[int, str]]:
        limit = self._func_ram
        if limit is None:
            return
        for number, used in reading.used.items():
            if used > limit and number in self._dispatcher.workers and number not in self._doomed:
                self._doom(
                    number, OutOfMemoryFigures(used, limit, reading.total, reading.available)
                )
                yield (
                    number,
                    f"killing worker {number}: it uses {_gb(used)} GB, func_ram is {_gb(limit)}",
                )

    def _is_short(self, reading: Reading) -> bool:
        guilty = GUILTY_SHARE * reading.total
        return reading.available < low(reading.total) and any(
            reading.used.get(number, 0) >= guilty for number in self._dispatcher.workers
        )

    def _slow_down(self, now_s: float) -> None:
        dispatcher = self._dispatcher
        dispatcher.slots = max(1, min(dispatcher.slots, dispatcher.busy()))
        self._rise_s = max(self._rise_s, now_s + RISE_S)

    def _relieve(self, reading: Reading) -> Iterator[tuple[int, str]]:
        """Yield who must go so that the others can stay."""
        workers = self._dispatcher.workers.values()
        used = {w.number: reading.used.get(w.number, 0) for w in workers}
        guilty = [w for w in workers if used[w.number] >= GUILTY_SHARE * reading.total]
        victims = [worker for worker in guilty if not worker.cells]
        if not victims:
            busy = [worker for worker in guilty if worker.is_busy()]
            if not busy:
                return
            alone = self._dispatcher.busy() == 1
            if alone and reading.available + reading.swap >= critical(reading.total):
                return  # slow, but it may end well
            most = max(used[worker.number] for worker in busy)
            big = [worker for worker in busy if used[worker.number] >= most / 2]
            victims = [max(big, key=lambda worker: (worker.heard_s, worker.number))]
        for worker in victims:
            number = worker.number
            figures = OutOfMemoryFigures(used[number], 0, reading.total, reading.available)
            self._doom(number, figures)
            left, total = _gb(reading.available), _gb(reading.total)
            yield (
                number,
                f"{left} of {total} GB of memory are left: killing worker {number},"
                f" which uses {_gb(figures.used)} GB",
            )

    def _doom(self, number: int, figures: OutOfMemoryFigures) -> None:
        self._doomed[number] = figures
        self._dispatcher.workers[number].is_doomed = True

    def _rise(self, reading: Reading, now_s: float) -> None:
        """Give a slot back, if there is room for one more call of those that run."""
        dispatcher = self._dispatcher
        if (
            dispatcher.slots >= dispatcher.slots_max
            or now_s < self._rise_s
            or self._kills
            or self._doomed
        ):
            return
        each = max((reading.used.get(number, 0) for number in dispatcher.workers), default=0)
        if reading.available >= low(reading.total) + each:
            dispatcher.slots += 1
            self._rise_s = now_s + RISE_S
            if dispatcher.slots == dispatcher.slots_max:
                self._patience_s = RISE_S

    # --- deaths ---

    def died(self, worker: Worker, how: Ending, now_s: float) -> OutOfMemoryFigures | None:
        """Take note of a death; return the figures if it was for memory.

        Must be told before the dispatcher is.
        """
        figures = self._doomed.pop(worker.number, None)
        used = self._used.pop(worker.number, 0)
        if figures is None and how == KILLED:
            figures = self._by_kernel(used, now_s)
        if figures is not None and not figures.limit and worker.is_busy():
            dispatcher = self._dispatcher
            dispatcher.slots = max(1, min(dispatcher.slots, dispatcher.busy() - 1))
            self._patience_s = min(2 * self._patience_s, RISE_MAX_S)
            self._rise_s = now_s + self._patience_s
        return figures

    def seen(self, worker: Worker) -> OutOfMemoryFigures | None:
        """Return the memory as last seen, of a worker that died; None: it never was looked at.

        Must be told before `died` is.
        """
        last, used = self._last, self._used.get(worker.number, 0)
        return None if last is None else OutOfMemoryFigures(used, 0, last.total, self._least)

    def _by_kernel(self, used: int, now_s: float) -> OutOfMemoryFigures | None:
        """Return the figures of a SIGKILL: from before it, since it has freed the memory."""
        last = self._last
        if last is None or not (now_s < self._oom_until_s or self._is_short(last)):
            return None
        return OutOfMemoryFigures(used, 0, last.total, self._least)

    def judge(
        self, index: int, how: Ending, figures: OutOfMemoryFigures | None, worker: Worker
    ) -> Death | None:
        """Return what to say of `index`, in which `worker` died; None: it is tried again.

        Must be told after the dispatcher is.
        """
        if figures is None:
            deaths = self._deaths[index] = self._deaths.get(index, 0) + 1
            return None if deaths < self._deaths_max else Death(*how, deaths)
        kills = self._kills[index] = self._kills.get(index, 0) + 1
        if figures.limit:
            # what earlier calls left in the worker may be to blame
            hopeless = kills >= DEATHS_MAX or not worker.has_run
        elif self._dispatcher.busy():
            dispatcher = self._dispatcher
            dispatcher.slots = max(1, dispatcher.slots // FEWER ** (kills - 1))
            hopeless = False
        else:
            lone = self._lone[index] = self._lone.get(index, 0) + 1
            others = 0 < figures.used < BIG_SHARE * figures.total  # something else used the rest
            hopeless = lone >= DEATHS_MAX or not others
        return Death(*how, kills, figures) if hopeless else None

    def snapshot(self) -> dict[str, object]:
        """Return the last reading, and what is killed for it, for people; in bytes."""
        last = self._last
        return {
            "total": last.total if last is not None else None,
            "available": last.available if last is not None else None,
            "used": {str(number): used for number, used in self._used.items()},
            "being_killed": sorted(self._doomed),
        }


def _gb(size: int) -> str:
    return f"{size / GB:.3g}"
