"""What people see while machines are worked on: a line each with its phase, and a summary."""

import getpass
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from msgspec import structs
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from burla.protocol.admin_messages import Jobs

from .config import NodeConfig
from .result import Result

REFRESH_HZ = 8
REMEDY = "Fix what is said above and run the same command again: it does the rest."
LINES_MAX = 40  # of machines at once on a terminal; the busy ones
STYLES = {"ready": "green", "removed": "green", "drained": "green", "failed": "red"}


class View:
    """Shows phases as they change, on stderr: live on a terminal, a line each elsewhere."""

    def __init__(self) -> None:
        """Begin with no machines."""
        self._console = Console(file=sys.stderr, highlight=False)
        self._phases: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._live: Live | None = None  # while it is shown

    def show(self, name: str, phase: str) -> None:
        """Show that a machine has come to a phase; may be called by any thread."""
        with self._lock:
            self._phases[name] = (phase, time.monotonic())
            if not self._console.is_terminal:
                self._console.print(f"{name}: {phase}", soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the lines on the terminal up to date meanwhile."""
        try:
            if not self._console.is_terminal:
                yield
                return
            self._live = Live(
                console=self._console,
                get_renderable=self._table,
                refresh_per_second=REFRESH_HZ,
                transient=False,
            )
            with self._live:
                yield
        except KeyboardInterrupt:
            self._console.print("Interrupted: run the same command again, it continues from there.")
            raise

    def ask_passphrase(self, path: str) -> str | None:
        """Ask for the passphrase of a key at the terminal; None: nobody is there.

        The lines stand still meanwhile: drawn anew, they would wipe the question away. One at a
        time; may be called by any thread.
        """
        if not self._console.is_terminal or not sys.stdin.isatty():
            return None
        live = self._live
        if live is not None:
            live.stop()
        try:
            with suppress(EOFError, OSError):
                return getpass.getpass(f"passphrase of {path}: ")
            return None
        finally:
            if live is not None:
                live.start()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            rows = list(self._phases.items())
        busy = [row for row in rows if row[1][0] not in STYLES]
        if len(rows) > LINES_MAX:
            rows = busy[:LINES_MAX]
        for name, (phase, since_s) in rows:
            if phase in STYLES:
                table.add_row(Text(name), Text(phase, STYLES[phase]), "")
            else:
                for_s = f"{time.monotonic() - since_s:.0f} s"
                table.add_row(Text(name), Spinner("dots", phase), Text(for_s, "dim"))
        return table

    def warn(self, texts: Sequence[str]) -> None:
        """Print what was done, but should be otherwise."""
        for text in texts:
            self._console.print(Text(f"warning: {text}"), soft_wrap=True)

    def tell_ended(self, jobs: Jobs) -> None:
        """Print whose jobs were ended."""
        for job in jobs.jobs[:LINES_MAX]:
            text = f"ended a job of {job.user}: {job.name}, {job.left} inputs left"
            self._console.print(Text(f"{text}, on {job.nodes} nodes"), soft_wrap=True)
        if jobs.total > LINES_MAX:
            self._console.print(f"and {jobs.total - LINES_MAX} more jobs")

    def summarize(
        self, results: Sequence[Result], done: str, advice: str = "", remedy: str = REMEDY
    ) -> None:
        """Print how it ended: n ready, n failed and why, and the remedy; what to do next."""
        failed = [result for result in results if result.why]
        self._console.print(f"{len(results) - len(failed)} {done}, {len(failed)} failed")
        for result in failed:
            self._console.print(Text(f"  {result.name}: {result.why}"), soft_wrap=True)
        if failed:
            self._console.print(Text(remedy), soft_wrap=True)
        if advice:
            self._console.print(Text(advice), soft_wrap=True)


def as_json(
    cluster: str,
    address: str,
    results: Sequence[Result],
    *,
    scheduler: Result | None = None,
    ended: Jobs | None = None,
    warnings: Sequence[str] | None = None,
    packages: NodeConfig | None = None,
) -> str:
    """Return what commands say with --json.

    Args:
        cluster: its name.
        address: of its scheduler.
        results: of its nodes.
        scheduler: how that is, if it was looked at; then ready is who is found so.
        ended: jobs that were ended, if some could be.
        packages: what nodes are given for all jobs; None: that is not told.
        warnings: what was done, but should be otherwise; None: nothing could be.
    """
    said: dict[str, Any] = {
        "cluster": cluster,
        "scheduler": address,
        "nodes": [asdict(result) for result in results],
        "ready": sum(not result.why for result in results),
        "failed": sum(bool(result.why) for result in results),
    }
    if scheduler is not None:
        said["state"], said["why"] = scheduler.phase, scheduler.why
        said["ready"] = sum(result.phase == "ready" for result in results)
        said["failed"] = len(results) - said["ready"]
    if warnings is not None:
        said["warnings"] = list(warnings)
    if packages is not None:
        said["packages"] = {"asked": list(packages.packages), "pins": list(packages.pins)}
    if ended is not None:
        said["jobs_ended"] = [structs.asdict(job) for job in ended.jobs]
    return json.dumps(said, indent=1)
