"""`burla jobs ...`: look at jobs, and stop them. Other rooms are imported inside commands only."""

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from .options import address_in_use, cluster_option, json_option

if TYPE_CHECKING:
    from burla.protocol.job_messages import JobQuestion, JobRecord, JobShown

    from .report_types import Report

LISTED = 50  # unless --limit says otherwise
TOP_S = 2.0
LISTED_MAX = 1000  # protocol.job_messages


@click.group()
def jobs() -> None:
    """List jobs, see why they wait and what failed, and stop them.

    You see your own jobs; an administrator sees all. What is kept of the last jobs outlives the
    scheduler.
    """


def _ask(cluster: str | None, question: "JobQuestion") -> "JobShown":
    from burla.protocol.job_messages import JOBS, JobShown

    from . import admin

    return admin.put(address_in_use(cluster), question, JobShown, feature=JOBS)


def _record(cluster: str | None, job: str) -> "JobRecord":
    """Return what is kept of a job.

    Raises:
        NoJob: there is none.
    """
    from burla.protocol.job_messages import ShowJob

    from . import admin

    said = _ask(cluster, ShowJob(job[:256]))
    if said.record is None:
        raise admin.NoJob(said.why)
    return said.record


def _say(as_json: bool, report: "Report", lines: list[str]) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report))
    else:
        click.echo("\n".join(lines))


@jobs.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only jobs that are not over.")
@click.option(
    "--limit",
    type=click.IntRange(1, LISTED_MAX),
    default=LISTED,
    show_default=True,
    help="How many at most.",
)
@cluster_option
@json_option
def list_jobs(only_open: bool, limit: int, cluster: str | None, as_json: bool) -> None:
    """List jobs: the open ones first, the newest of each first.

    STATE is waiting, running, failing, complete, failed, cancelled, ended (before all was done) or
    lost (with an earlier life of the scheduler). A loop of equal short maps is one line.
    """
    from burla.protocol.job_messages import JOBS, JobList, ListJobs

    from . import admin, job_reports as jr, report_types as rt
    from .jobs_view import jobs_lines

    said = admin.put(address_in_use(cluster), ListJobs(limit, only_open), JobList, feature=JOBS)
    now_s = time.time()
    found = rt.Jobs(jobs=[jr.job_of(one, now_s) for one in said.jobs], total=said.total)
    _say(as_json, rt.JobsListed(data=found), [] if as_json else jobs_lines(found))


@jobs.command()
@click.argument("job", default="")
@cluster_option
@json_option
def show(job: str, cluster: str | None, as_json: bool) -> None:
    """Show all that is kept of a job (default: the one that was opened last).

    JOB is its id, or the first digits of that.
    """
    from . import job_reports as jr, report_types as rt
    from .jobs_view import details_lines

    found = jr.details_of(_record(cluster, job), time.time())
    _say(as_json, rt.JobShown(data=found), [] if as_json else details_lines(found))


@jobs.command()
@click.argument("job", default="")
@cluster_option
@json_option
def why(job: str, cluster: str | None, as_json: bool) -> None:
    """Say why a job waits, what of it lasts, or why it ended, and what to do about it.

    JOB is its id, or the first digits of that (default: the job that was opened last).
    """
    from . import job_reports as jr, report_types as rt
    from .jobs_view import reason_lines

    found = jr.reason_of(_record(cluster, job))
    _say(as_json, rt.JobExplained(data=found), [] if as_json else reason_lines(found))


@jobs.command()
@click.argument("job", default="")
@cluster_option
@json_option
def errors(job: str, cluster: str | None, as_json: bool) -> None:
    """List the calls of a job that failed: input, node, type and text.

    JOB is its id, or the first digits of that (default: the job that was opened last).
    """
    from . import job_reports as jr, report_types as rt
    from .jobs_view import errors_lines

    found = jr.errors_of(_record(cluster, job))
    _say(as_json, rt.JobErrors(data=found), [] if as_json else errors_lines(found))


@jobs.command()
@click.argument("job", nargs=-1, required=True)
@cluster_option
@json_option
def cancel(job: tuple[str, ...], cluster: str | None, as_json: bool) -> None:
    """Stop jobs: their calls are interrupted, and their callers get an error that says who did it.

    JOB is the id of one, or the first digits of that.
    """
    from burla.protocol.job_messages import CancelJob

    from . import admin, job_reports as jr, report_types as rt

    found, refused = [], ""
    for one in job:  # all of them, whatever is wrong with one
        said = _ask(cluster, CancelJob(one[:256]))
        if said.record is None or said.why:
            refused = refused or said.why
            continue
        found.append(jr.job_of(said.record.summary, time.time()))
        if not as_json:
            click.echo(
                f"cancelled job {found[-1].job[:8]} of {found[-1].user}: {found[-1].function}"
            )
    if as_json and (found or not refused):
        _say(as_json, rt.JobsCancelled(data=found), [])
    if refused:
        raise admin.NoJob(refused)


@jobs.command()
@click.argument("job")
@cluster_option
@json_option
def detach(job: str, cluster: str | None, as_json: bool) -> None:
    r"""Let a job that runs go on without its script, which ends with burla.JobDetached.

    JOB is its id, or the first digits of that. What its script has of results is kept, and not run
    again. In the terminal of the script, Ctrl-\ does the same.
    """
    from . import report_types as rt
    from .detaching import detach as detach_job

    address = address_in_use(cluster)
    found, stored = detach_job(address, job[:256])
    told = rt.JobHandedOver(job=found.summary.job.hex(), detached=stored)
    lines = [
        f"detached job {told.job[:8]} of {found.summary.user}: {found.summary.name}",
        f'It goes on as {stored}: burla.attach("{stored}").results()',
    ]
    _say(as_json, rt.JobDetached(data=told), lines)


@click.command()
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=TOP_S,
    show_default=True,
    help="Seconds between two looks.",
)
@cluster_option
@json_option
def top(once: bool, interval: float, cluster: str | None, as_json: bool) -> None:
    """Show jobs and nodes as they are now, again and again, until Ctrl-C.

    With --json, and where stdout is no terminal, a report each time. A cluster that does not answer
    any more is said to be so, and asked again.
    """
    from burla.errors import BurlaError

    from . import failures, job_reports as jr, report_types as rt
    from .jobs_view import cluster_lines

    address = address_in_use(cluster)

    def look() -> "rt.Cluster":
        from burla.protocol.job_messages import JOBS, JobList, ListJobs

        from . import admin

        said = admin.put(address, ListJobs(LISTED), JobList, feature=JOBS)
        return jr.cluster_of(said, admin.list_nodes(address), time.time())

    def lines(found: "rt.Cluster", rows: int = LISTED + 2) -> list[str]:
        return cluster_lines(found, time.strftime("%H:%M:%S"), rows)

    def look_again() -> "rt.Cluster | BurlaError":
        try:
            return look()
        except BurlaError as error:
            return error

    found = look()  # before the screen is another one: what is wrong is said on this one
    now: rt.Cluster | BurlaError = found
    if as_json or once or not sys.stdout.isatty():
        while True:
            if not isinstance(now, BurlaError):
                _say(as_json, rt.Top(data=now), [] if as_json else [*lines(now), ""])
            elif as_json:
                click.echo(
                    failures.as_json(failures.failure_of(now) or failures.INTERNAL, f"{now}")
                )
            else:
                click.echo(f"burla: {now}", err=True)
            if once:
                return
            time.sleep(interval)
            now = look_again()
    from rich.console import Console  # which takes long to import
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with (
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            if isinstance(now, BurlaError):  # what was seen last stays
                shown = [f"NOT LIVE: {now}", *lines(found, console.height - 1)]
            else:
                found, shown = now, lines(now, console.height)
            text = Text("\n".join(shown), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)
            time.sleep(interval)
            now = look_again()


@click.command()
def schema() -> None:
    """Print the JSON schema of what commands print with --json."""
    from importlib.resources import files

    click.echo(files("burla.commands").joinpath("schema.json").read_text("utf-8"), nl=False)
