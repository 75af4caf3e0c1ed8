"""Which nodes there were is kept in a file of this user's."""

import asyncio
from pathlib import Path

import pytest

from burla.scheduler.shell import former_nodes

A, B = b"a" * 16, b"b" * 16


def test_what_changes_is_written(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    there = frozenset([A])

    async def main() -> None:
        nonlocal there
        async with asyncio.timeout(10):
            task = asyncio.create_task(former_nodes.keep(path, lambda: there))
            while former_nodes.read(path) != {A}:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
            there = frozenset([A, B])
            while former_nodes.read(path) != {A, B}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["nodes"]


@pytest.mark.parametrize("text", ["nonsense", "abcd\n", "\0"])
def test_of_a_file_that_makes_no_sense_nothing_is_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "nodes").write_text(text)
    assert former_nodes.read(tmp_path / "nodes") is None


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert former_nodes.read(tmp_path / "nodes") is None
    (tmp_path / "nodes").touch()
    assert former_nodes.read(tmp_path / "nodes") == set()
