"""Which nodes there were is kept in a file of this user's."""

import asyncio
from pathlib import Path

import pytest

from burla.scheduler.shell import former_nodes
from burla.scheduler.shell.former_nodes import MISSING_S

A, B = b"a" * 16, b"b" * 16


def write(path: Path, there: set[bytes], awaited: set[bytes], missing: dict[bytes, float]) -> None:
    """Let a scheduler live until it has written what it knows."""

    path.unlink(missing_ok=True)

    async def main() -> None:
        known = frozenset(there | awaited)
        task = asyncio.create_task(
            former_nodes.keep(path, lambda: known, lambda: frozenset(awaited), missing)
        )
        async with asyncio.timeout(10):
            while former_nodes.read(path, 0.0) is None:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())


def test_what_changes_is_written(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    there = frozenset([A])

    async def main() -> None:
        nonlocal there
        async with asyncio.timeout(10):
            task = asyncio.create_task(former_nodes.keep(path, lambda: there, frozenset, {}))
            while former_nodes.read(path, 50.0) != {A: 50.0}:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
            there = frozenset([A, B])
            while former_nodes.read(path, 50.0) != {A: 50.0, B: 50.0}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["nodes"]


def test_a_node_that_is_missing_in_one_life_after_the_other_is_awaited_no_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nodes"
    write(path, {A}, {B}, {B: 1000.0})
    assert former_nodes.read(path, 1005.0) == {A: 1005.0, B: 1000.0}
    assert former_nodes.read(path, 990.0) == {A: 990.0, B: 990.0}  # the clock was set
    assert former_nodes.read(path, 1000.0 + MISSING_S) == {A: 1000.0 + MISSING_S}
    write(path, {A, B}, set(), {B: 1000.0})  # it is back
    assert former_nodes.read(path, 2000.0) == {A: 2000.0, B: 2000.0}


@pytest.mark.parametrize("text", ["nonsense", "abcd\n", "\0", f"{'ab' * 16} soon"])
def test_of_a_file_that_makes_no_sense_nothing_is_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "nodes").write_text(text)
    assert former_nodes.read(tmp_path / "nodes", 0.0) is None


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert former_nodes.read(tmp_path / "nodes", 0.0) is None
    (tmp_path / "nodes").touch()
    assert former_nodes.read(tmp_path / "nodes", 0.0) == {}
