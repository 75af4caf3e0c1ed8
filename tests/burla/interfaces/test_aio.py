"""Results in an event loop, without a cluster."""

import asyncio
from typing import Any

import pytest

import burla
from burla.interfaces import reactor


class Scripted:
    """Stands in for a reactor."""

    def __init__(self) -> None:
        self.machines: list[Any] = []
        self.consumed = 0

    def begin(self, machine: Any) -> None:
        """Take note of a map."""
        self.machines.append(machine)

    def go_on(self, machine: Any) -> None:
        """End it."""
        self.consumed += 1
        machine.end(None, None)

    def abandon(self, machine: Any) -> None:
        """Have it so."""


def test_one_task_waits_for_the_next_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted()
    monkeypatch.setattr(reactor, "shared", scripted)

    async def main() -> None:
        results = burla.amap(abs, [-1], generator=True)
        first = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            await anext(results)
        assert scripted.consumed == 0
        scripted.machines[0].hand([1])
        assert await first == 1
        assert [one async for one in results] == []
        assert scripted.consumed == 1

    asyncio.run(main())
