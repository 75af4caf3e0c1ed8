"""What people see of a scheduler: what is kept of jobs, and metrics. Set up where they are wanted.

Neither is imported where it is not: a private cluster pays for each import at its start.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from burla.protocol import VERSION
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.core import following, telling
from burla.scheduler.core.effects import FetchOutput, KeepOutput, KeepRecords, Send, ToFile
from burla.scheduler.core.outputs import Part, Reading
from burla.scheduler.core.questions import unfiled, unfiled_output
from burla.scheduler.core.scheduler import Scheduler

if TYPE_CHECKING:
    from .record_file import RecordFile


def keep_jobs(
    file: Path,
    core: Scheduler,
    ends: contextlib.ExitStack,
    clock_s: Callable[[], float],
    send: Callable[[Send], None],
) -> Callable[[ToFile], None]:
    """Take up what a file has of jobs; return what keeps more there, and looks into it.

    Args:
        file: where it is.
        core: whose jobs these are.
        ends: closes the file.
        clock_s: the time of the core.
        send: answers who waited for what is in the file.
    """
    from .record_file import RecordFile

    record_file = RecordFile(file)
    ends.callback(record_file.close)
    ends.callback(_put_last, record_file, core, clock_s)
    _take_up(record_file, core, clock_s())
    loop = asyncio.get_running_loop()

    def answer(reading: Reading, parts: list[Part], lost_bytes: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(
                lambda: send(following.fetched(reading, parts, lost_bytes, clock_s()))
            )

    def do(what: ToFile) -> None:
        match what:
            case KeepRecords(rows):
                record_file.put(rows)
            case KeepOutput(filed):
                record_file.put_output(filed, clock_s())
            case FetchOutput(reading):
                is_taken = record_file.fetch_output(
                    reading.job,
                    reading.tenant,
                    clock_s(),
                    lambda parts, lost_bytes: answer(reading, parts, lost_bytes),
                )
                if not is_taken:
                    send(following.put_off(reading))
            case _:
                assert_never(what)

    return do


def _take_up(record_file: "RecordFile", core: Scheduler, now_s: float) -> None:
    records = core.state.records
    records.restore(telling.taken_up(record_file.read(), now_s), now_s)
    for record in records.former.values():
        found = record_file.read_output(record.id, record.tenant, now_s)
        records.outputs.restore(record.id, record.tenant, *found)


def _put_last(record_file: "RecordFile", core: Scheduler, clock_s: Callable[[], float]) -> None:
    record_file.put(unfiled(core.state, at_once=True))
    if filed := unfiled_output(core.state, at_once=True):
        record_file.put_output(filed, clock_s())


def show_metrics(
    config: SchedulerConfig, core: Scheduler, ends: contextlib.ExitStack
) -> Callable[[], None]:
    """Serve metrics, if that is wanted; return what is to be called now and then."""
    if config.metrics is None:
        return lambda: None
    from burla.scheduler.core.figures import figures

    from .metrics import Metrics

    assert config.state_file is not None
    metrics = Metrics(config.metrics, config.state_file.parent, VERSION)
    ends.callback(metrics.close)

    def publish() -> None:
        if metrics.is_due():
            metrics.publish(figures(core.state))

    return publish
