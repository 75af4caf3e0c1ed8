"""`burla jobs logs`: what the calls of a job have printed, and what they print."""

import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .options import address_in_use, cluster_option, iso, json_option

if TYPE_CHECKING:
    from .job_output import LeftOut
    from .output_lines import Line

OVER = "\r\x1b[K"  # the cursor goes to the beginning of its line, which is empty then


@click.command()
@click.argument("job", default="")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is over.")
@click.option("--input", "index", type=click.IntRange(0), help="Only of the call of this input.")
@click.option("--stdout", "stdout", is_flag=True, help="Only what was printed to stdout.")
@click.option("--stderr", "stderr", is_flag=True, help="Only what was printed to stderr.")
@click.option("--tail", type=click.IntRange(0), help="Of what is there only the last lines.")
@click.option("--prefix", is_flag=True, help="Before each line: when (UTC), node, input.")
@cluster_option
@json_option
def logs(
    job: str,
    follow: bool,
    index: int | None,
    stdout: bool,
    stderr: bool,
    tail: int | None,
    prefix: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Show what the calls of a job have printed, while it runs and afterwards.

    JOB is its id, or the first digits of that (default: the job that was opened last). Of a job
    that prints very much the first part and the last one are kept. With --json there is a report
    for each line.
    """
    from . import admin
    from .output_lines import Line

    address = admin.required(address_in_use(cluster))
    streams = {name for name, is_wanted in (("stdout", stdout), ("stderr", stderr)) if is_wanted}
    writer = _JsonWriter() if as_json else _TextWriter(prefix)
    waiting: deque[Line | LeftOut] | None = None if tail is None else deque(maxlen=tail)
    for one in _lines(address, job, follow=follow, holds=as_json or prefix):
        if one is None:  # all that was there is told
            if waiting is not None:
                _write_all(writer, waiting)
                waiting = None
            writer.flush()
        elif isinstance(one, Line) and not _is_wanted(one, index, streams):
            continue
        elif waiting is not None:
            waiting.append(one)
        else:
            writer.write(one)
            if follow:
                writer.flush()
    if waiting is not None:
        _write_all(writer, waiting)
    writer.end()


def _is_wanted(line: "Line", index: int | None, streams: set[str]) -> bool:
    from .output_lines import is_of

    is_of_stream = not streams or line.first.stream in streams
    return is_of_stream and (index is None or is_of(line.inputs, index))


def _write_all(writer: "_Writer", lines: "deque[Line | LeftOut]") -> None:
    for one in lines:
        writer.write(one)


def _lines(
    address: str, job: str, *, follow: bool, holds: bool
) -> "Iterator[Line | LeftOut | None]":
    """Yield lines; None: nothing comes just now; `holds`: then lines that have begun wait."""
    from .job_output import LeftOut, output_of
    from .output_lines import Lines

    lines = Lines()
    for printed in output_of(address, job, follow=follow):
        if printed is None:
            if not holds:
                yield from lines.rest()
            yield None
        elif isinstance(printed, LeftOut):
            yield printed
        else:
            yield from lines.feed(printed)
    yield from lines.rest()


class _Writer(ABC):
    """Writes lines to stdout."""

    @abstractmethod
    def write(self, line: "Line | LeftOut") -> None:
        """Write one."""

    def flush(self) -> None:
        """Let what was written be seen."""
        sys.stdout.flush()

    @abstractmethod
    def end(self) -> None:
        """Write what is missing at the end."""


class _JsonWriter(_Writer):
    """A report for each line."""

    def write(self, line: "Line | LeftOut") -> None:
        """Write one."""
        import msgspec

        from . import job_reports as jr, report_types as rt
        from .output_lines import Line

        tell = jr.log_line_of(line) if isinstance(line, Line) else jr.left_out_of(line)
        report = rt.JobLog(data=tell)
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")

    def end(self) -> None:
        """Write nothing: each report is whole."""


class _TextWriter(_Writer):
    """Lines as they were printed, without what could harm a terminal."""

    def __init__(self, prefix: bool) -> None:
        self._prefix = prefix
        self._is_terminal = sys.stdout.isatty()
        self._color = self._is_terminal and not os.environ.get("NO_COLOR")
        self._open: tuple[bytes, str] | None = None  # whose line has not ended

    def write(self, line: "Line | LeftOut") -> None:
        """Write one."""
        from .jobs_view import size
        from .output_lines import Line, safe

        if not isinstance(line, Line):
            self.end()
            sys.stdout.flush()
            click.echo(f"[burla: {size(line.bytes)} of output are not kept]", err=True)
            return
        whose = line.first.lease, line.first.stream
        if self._open not in (None, whose):
            self.end()
        elif self._open is not None and line.is_over_last:  # as progress bars are
            sys.stdout.write(OVER if self._is_terminal else "\n")
        text = safe(line.text, color=self._color)
        if self._prefix:
            text = f"{_prefix_of(line)}{text}"
        sys.stdout.write(_writable(text + "\n" * (line.has_ended or self._prefix)))
        self._open = None if line.has_ended or self._prefix else whose

    def end(self) -> None:
        """End a line that has not ended."""
        if self._open is not None:
            self._open = None
            sys.stdout.write("\n")


def _prefix_of(line: "Line") -> str:
    from .output_lines import which

    when = (iso(line.first.time_s) or "")[11:19]
    return f"{when} {line.first.node} {which(line.inputs)} | "


def _writable(text: str) -> str:
    """Return what the encoding of stdout can have."""
    name = sys.stdout.encoding or "utf-8"
    return text.encode(name, "backslashreplace").decode(name)
