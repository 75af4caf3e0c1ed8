"""Notebooks in real kernels: cells are executed as a front end would, and what it would show."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbclient
import psutil
from nbformat.v4 import new_code_cell, new_notebook
from waiting import LATE_S

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Shown:
    """What is under a cell."""

    out: str = ""
    err: str = ""
    displays: list[dict[str, str]] = field(default_factory=list)  # by kind of content
    result: dict[str, str] = field(default_factory=dict)
    error: str = ""  # name
    traceback: str = ""  # without colors


class Notebook:
    """One kernel and its cells."""

    def __init__(self, client: Any) -> None:
        """Run cells in this one."""
        self._client = client
        self._streams: dict[str, str] = {}  # what was written, by the request that it is told to

    async def hear(self) -> None:
        """Take note of all output, also of cells that have ended, until cancelled."""
        ear = self._client.km.client()
        ear.start_channels(shell=False, stdin=False, hb=False, control=False)
        try:
            while True:
                heard = await ear.get_iopub_msg()
                if heard["msg_type"] == "stream":
                    request = heard["parent_header"].get("msg_id", "")
                    before = self._streams.get(request, "")
                    self._streams[request] = before + heard["content"]["text"]
        finally:
            ear.stop_channels()

    async def wait_under(self, first: str, last: str) -> str:
        """Return what is under the cell that prints `first`, as soon as `last` is there."""
        async with asyncio.timeout(LATE_S):
            while True:
                for text in self._streams.values():
                    if first in text and last in text:
                        return text
                await asyncio.sleep(0.01)

    @property
    def pid(self) -> int:
        """Of the kernel."""
        return int(self._client.km.provisioner.pid)

    async def run(self, source: str) -> Shown:
        """Execute a cell; return what it shows when it has ended."""
        shown: Shown = self.shown(await self.begin(source))
        return shown

    async def begin(self, source: str) -> Any:
        """Execute a cell; return it."""
        cell = new_code_cell(source)  # type: ignore[no-untyped-call]
        self._client.nb.cells.append(cell)
        await self._client.async_execute_cell(cell, len(self._client.nb.cells) - 1)
        return cell

    async def killed(self, source: str, marker: Path) -> list[psutil.Process]:
        """Restart the kernel in the middle of a cell, by force; return what ran there."""
        self._client.kc.execute(source)
        await self._wait_for(marker)
        kernel = psutil.Process(self.pid)
        ran = [kernel, *kernel.children(recursive=True)]
        await self._client.km.restart_kernel(now=True)
        return ran

    async def interrupted(self, source: str, marker: Path) -> Shown:
        """Interrupt a cell as soon as it has made a file."""
        cell = asyncio.create_task(self.begin(source))
        await self._wait_for(marker)
        await self._client.km.interrupt_kernel()
        shown: Shown = self.shown(await cell)
        return shown

    @staticmethod
    async def _wait_for(marker: Path) -> None:
        async with asyncio.timeout(LATE_S):
            while not os.path.exists(marker):  # noqa: ASYNC110, ASYNC240 - by another process
                await asyncio.sleep(0.01)
        os.unlink(marker)

    @staticmethod
    def shown(cell: Any) -> Shown:
        """Return what is under a cell now."""
        shown = Shown()
        for output in cell.outputs:
            match output.output_type:
                case "stream" if output.name == "stdout":
                    shown.out += output.text
                case "stream":
                    shown.err += output.text
                case "error":
                    shown.error = output.ename
                    shown.traceback = _COLORS.sub("", "\n".join(output.traceback))
                case "execute_result":
                    shown.result = dict(output.data)
                case _:
                    shown.displays.append(dict(output.data))
        return shown


@asynccontextmanager
async def notebook(directory: Path) -> AsyncIterator[Notebook]:
    """Run a kernel whose working directory this is."""
    empty = new_notebook()  # type: ignore[no-untyped-call]
    empty.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    resources = {"metadata": {"path": str(directory)}}
    client = nbclient.NotebookClient(empty, timeout=LATE_S, allow_errors=True, resources=resources)
    async with client.async_setup_kernel():
        made = Notebook(client)
        hearing = asyncio.create_task(made.hear())
        try:
            yield made
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
