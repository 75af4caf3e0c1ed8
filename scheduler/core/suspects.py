"""Which inputs may be what their nodes were lost by: counted, isolated, and blamed at last. Pure.

A node that dies takes thousands of inputs along, and which of them ran is not known. So nobody is
blamed for having been there: what was there twice is run alone, and only who was alone when the
last of three nodes died is named. A scheduler that is started again begins to count anew.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from burla.protocol.ranges import Range, Ranges

ALONE_FROM = 2  # deaths of nodes that had an input: from then on it is run alone
GUILTY_FROM = 3  # likewise: then it is named, if it was alone when the last one died
# Nodes that said that they end do not count like deaths; but what makes every node end, by a
# shutdown that it asks for, must not take all of them.
ENDS_PER_DEATH = 3
LOSSES_KEPT = 32  # of one job; the oldest are forgotten
VERDICT_S = 2.0  # a nodelet that was only cut off says Hello again within this time


class Loss(Struct, frozen=True):
    """One node that was lost while it served the job."""

    node: bytes
    name: str
    held: Ranges  # what it had without outcome; what is done since is taken out now and then
    at_s: float
    alone: int | None = None  # the input that was tried alone there, if that was so
    orderly: bool = False  # it had said that it would end


class Guilty(Struct, frozen=True):
    """An input that its nodes died of."""

    index: int
    nodes: tuple[str, ...]  # in the order of their deaths


class Suspects(Struct):
    """The losses of one job, and what follows from them for its inputs."""

    losses: list[Loss] = field(default_factory=list)
    is_open: bool = False  # something that was on a lost node has no outcome yet
    elsewhere: int = 0  # nodes that died without serving the job, since it was opened

    def add(self, loss: Loss) -> None:
        """Take note of a lost node."""
        self.losses.append(loss)
        if len(self.losses) > LOSSES_KEPT:
            self.losses.remove(next((old for old in self.losses if not old.held), self.losses[0]))
        self.is_open = self.is_open or bool(loss.held)

    def undo(self, node: bytes) -> bool:
        """Take note that a node lives, which was only silent; return whether that changes a count.

        A nodelet that is started again is another node.
        """
        before = len(self.losses)
        self.losses = [loss for loss in self.losses if loss.node != node]
        return len(self.losses) < before

    def prune(self, done: Ranges) -> None:
        """Forget what has its outcome by now; the losses themselves still tell of bad nodes."""
        for loss in self.losses:
            for lo, hi in list(loss.held):
                for part in done.common(lo, hi):
                    loss.held.remove(*part)
        self.is_open = any(loss.held for loss in self.losses)

    def dangerous(self, lo: int, hi: int) -> Iterator[Range]:
        """Yield the parts of [lo, hi) that are to be run alone, ascending."""
        for first, last, deaths, ends in self._counted(lo, hi):
            if deaths >= ALONE_FROM or deaths + ends >= ALONE_FROM * ENDS_PER_DEATH:
                yield first, last

    def names(self) -> set[str]:
        """Return the names of the nodes that were lost."""
        return {loss.name for loss in self.losses}

    def guilty(self, now_s: float) -> Guilty | None:
        """Return who is to be named now; None: nobody."""
        tried = dict.fromkeys(loss.alone for loss in self.losses if loss.alone is not None)
        for index in tried:
            held_by = [loss for loss in self.losses if index in loss.held]
            if (
                held_by
                and now_s >= held_by[-1].at_s + VERDICT_S
                and self._is_guilty(index, held_by)
            ):
                return Guilty(index, tuple(loss.name for loss in held_by))
        return None

    def awaits_verdict(self, index: int) -> bool:
        """Return whether an input will be named, unless its last node comes back in a moment."""
        held_by = [loss for loss in self.losses if index in loss.held]
        return self._is_guilty(index, held_by)

    def _is_guilty(self, index: int, held_by: list[Loss]) -> bool:
        deaths = [loss for loss in held_by if not loss.orderly]
        if len(deaths) < GUILTY_FROM and len(held_by) < GUILTY_FROM * ENDS_PER_DEATH:
            return False
        alone = sum(loss.alone == index for loss in held_by)
        others = self.elsewhere + len(self.losses) - len(held_by)
        # where nodes go that did not have it, one that died with it alone may be chance
        return alone >= (2 if others else 1)

    def _counted(self, lo: int, hi: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the parts of [lo, hi) with how many deaths, and how many orderly ends, had them."""
        changes: dict[int, tuple[int, int]] = {}
        for loss in self.losses:
            death, end = (0, 1) if loss.orderly else (1, 0)
            for first, last in loss.held.common(lo, hi):
                for at, sign in ((first, 1), (last, -1)):
                    deaths, ends = changes.get(at, (0, 0))
                    changes[at] = deaths + sign * death, ends + sign * end
        deaths = ends = 0
        at = lo
        for place in sorted(changes):
            if place > at and (deaths or ends):
                yield at, place, deaths, ends
            deaths, ends, at = deaths + changes[place][0], ends + changes[place][1], place

    def check(self, done: Iterable[Range]) -> None:
        """Assert what must hold; for tests."""
        assert len(self.losses) <= LOSSES_KEPT
        finished = Ranges(done)
        for loss in self.losses:
            assert loss.alone is None or list(loss.held) in ([], [(loss.alone, loss.alone + 1)])
            for lo, hi in loss.held:
                assert self.is_open or finished.covers(lo, hi)
