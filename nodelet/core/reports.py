"""What workers say of their spans: believed as far as it fits, big values in turn. Pure.

A value that flows comes in fragments, as its worker writes it.
"""

from collections.abc import Sequence
from typing import Protocol

from burla.protocol.messages import Kind, Run

from .cells import BrokenWorkerError, Worker
from .effects import Effect, PauseReading, ResumeReading
from .events import CellReport, Reported
from .lease_workers import LeaseWorkers
from .reporting import Report
from .tallying import SLOW_S
from .turns import Turns


class Taker(Protocol):
    """Who is told of outcomes, each time: who kept it would be in a ring, freed late."""

    def complete(self, run: Run, frames: Sequence[bytes], now_s: float, report: CellReport) -> None:
        """Take an outcome, or a part of one."""

    def again(self, index: int, why: str, now_s: float) -> bool:
        """Take an error of type `why`; return whether its call is called again."""


class Reports:
    """Takes what the workers of one lease say."""

    def __init__(
        self,
        workers: LeaseWorkers,
        report: Report,
        effects: list[Effect],
    ) -> None:
        """Begin without a word.

        Args:
            workers: of the lease.
            report: where their output goes.
            effects: where all that is asked for is put.
        """
        self.turns = Turns()
        self._workers, self._report = workers, report
        self._effects = effects

    def take(self, event: Reported, taker: Taker, now_s: float) -> None:
        """Take outcomes, and what is given back; who contradicts itself is killed."""
        worker = self._workers.ready.get(event.worker)
        if worker is None or worker.is_broken:
            return
        for report in event.reports:
            if report.fragment is not None and not self.turns.admit(worker.number, report):
                self._effects.append(PauseReading(worker.number))
                continue
            try:
                self._take(worker, report, taker, now_s)
            except BrokenWorkerError as error:
                self._workers.kill_broken(worker, error)
                return
            if report.fragment is not None and report.is_whole():
                self._go_on(taker, now_s)

    def forget(self, worker: int, taker: Taker, now_s: float) -> None:
        """Drop what has come of a value of a worker that is gone."""
        self.turns.forget(worker)
        self._go_on(taker, now_s)

    def _take(self, worker: Worker, report: CellReport, taker: Taker, now_s: float) -> None:
        if not report.is_whole():
            worker.expect(report)
            taker.complete(Run(report.lo, report.hi, report.kind, 1), (), now_s, report)
            return
        self._workers.take_report(worker, report, now_s)
        words = self._workers.words
        if report.kind is Kind.ERROR or report.seconds >= SLOW_S:
            report = report._replace(words=words.of_call(worker.number))
        if report.frames:
            words.call_ended(worker.number)
        why = report.retry_why
        if why is not None and taker.again(report.lo, why, now_s):
            return
        if report.frames:
            if report.kind is Kind.ERROR or not worker.is_busy():
                self._report.output.mark(worker.number)  # else it may be in the next line
            run = Run(report.lo, report.hi, report.kind, len(report.frames))
            taker.complete(run, report.frames, now_s, report)

    def _go_on(self, taker: Taker, now_s: float) -> None:
        """Let the next big value flow, if there is one and none does."""
        while (turn := self.turns.next()) is not None:
            worker, reports = turn
            if worker in self._workers.ready:
                self._effects.append(ResumeReading(worker))
                self.take(Reported(worker, reports), taker, now_s)
