"""What people see of a scheduler: what is kept of jobs, and metrics. Set up where they are wanted.

Neither is imported where it is not: a private cluster pays for each import at its start.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from burla.protocol import VERSION
from burla.protocol.job_messages import JobRecord
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.core.questions import unfiled
from burla.scheduler.core.scheduler import Scheduler

Rows = Sequence[tuple[str, JobRecord]]


def keep_jobs(
    file: Path, core: Scheduler, ends: contextlib.ExitStack, now_s: float
) -> Callable[[Rows], None]:
    """Take up what a file has of jobs; return what keeps more there."""
    from .record_file import RecordFile

    record_file = RecordFile(file)
    ends.callback(record_file.close)
    ends.callback(lambda: record_file.put(unfiled(core.state, at_once=True)))
    core.state.records.restore(record_file.read(), now_s)
    return record_file.put


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
