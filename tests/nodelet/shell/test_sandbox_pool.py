"""Which sandboxes are made, and which have blanks: with sandboxes that nobody makes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from burla.nodelet.isolation.tier import Tier
from burla.nodelet.shell import sandbox_pool
from burla.nodelet.shell.launching import Launched
from burla.nodelet.shell.sandbox_pool import SandboxPool
from burla.nodelet.shell.worker_pool import Owner, WorkerPool

BLANKS = 3
TURNS = 10  # of the loop: whatever is due is done


class Sandbox:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.blanks = 0
        self.is_open = True

    def prepare(self, blanks: int) -> None:
        self.blanks = blanks

    async def close(self) -> None:
        self.is_open = False


class Sandboxes(SandboxPool):
    """As it is, but for the processes."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(cast(Owner, None), scratch, Tier.UID, hash_seed=1)
        self.made: list[Sandbox] = []

    async def _start_supervisor(self, launched: Launched | None) -> None:
        self._supervisor = cast(Any, Sandbox())

    async def _make(self, image: str = "", shown: Sequence[str] = ()) -> WorkerPool:
        self.made.append(Sandbox())
        return cast(WorkerPool, self.made[-1])

    def blanks(self) -> list[int]:
        return [one.blanks for one in self.made]


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def test_the_next_sandbox_has_blanks_from_the_first_lease_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_pool, "REST_S", 0.0)

    async def conversation() -> None:
        pool = Sandboxes(tmp_path)
        await pool.start()
        pool.prepare(BLANKS)
        await turns()
        assert pool.blanks() == [BLANKS, 0], "a node that waits pays for one lease"
        pool.begin_lease()
        await turns()
        assert pool.blanks() == [BLANKS, BLANKS]
        await pool.end_lease()
        await turns()
        assert pool.current is cast(Any, pool.made[1])
        assert pool.blanks() == [0, BLANKS, BLANKS]
        pool.begin_lease()
        await pool.end_lease()
        await pool.close()
        assert not any(one.is_open for one in pool.made)

    asyncio.run(conversation())


def test_a_lease_that_is_over_at_once_leaves_a_sandbox_with_blanks(tmp_path: Path) -> None:
    async def conversation() -> None:
        pool = Sandboxes(tmp_path)
        await pool.start()
        pool.prepare(BLANKS)
        pool.begin_lease()
        await pool.end_lease()  # sooner than it is made
        assert cast(Any, pool.current).blanks == BLANKS
        await pool.close()

    asyncio.run(conversation())
