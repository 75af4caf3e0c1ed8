"""What people see while machines are worked on: a line each with its phase, and a sum."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .cluster import Result

REFRESH_HZ = 8
LINES_MAX = 40  # of machines at once on a terminal; the busy ones
STYLES = {"ready": "green", "removed": "green", "drained": "green", "failed": "red"}


class View:
    """Shows phases as they change, on stderr: live on a terminal, a line each elsewhere."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._console = Console(file=sys.stderr, highlight=False)
        self._phases: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def watch(self, name: str, phase: str) -> None:
        """Take note that a machine has come to a phase; may be called by any thread."""
        with self._lock:
            self._phases[name] = (phase, time.monotonic())
            if not self._console.is_terminal:
                self._console.print(f"{name}: {phase}", soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the lines on the terminal up to date meanwhile."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=REFRESH_HZ,
            transient=False,
        ):
            yield

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

    def sum(self, results: Sequence[Result], done: str, advice: str = "") -> None:
        """Say how it ended: n ready, n failed and why, what to do."""
        failed = [result for result in results if result.why]
        self._console.print(f"{len(results) - len(failed)} {done}, {len(failed)} failed")
        for result in failed:
            self._console.print(Text(f"  {result.name}: {result.why}"), soft_wrap=True)
        if failed:
            self._console.print("Mend what is said above and run the same again: it does the rest.")
        if advice:
            self._console.print(Text(advice), soft_wrap=True)


def as_json(cluster: str, address: str, results: Sequence[Result]) -> str:
    """Return what commands say with --json."""
    said = {
        "cluster": cluster,
        "scheduler": address,
        "nodes": [asdict(result) for result in results],
        "ready": sum(not result.why for result in results),
        "failed": sum(bool(result.why) for result in results),
    }
    return json.dumps(said, indent=1)
