"""Packages that an operator gives a node: there before it joins, and for as long as it runs."""

import asyncio
import os
from pathlib import Path

import pytest
from loops import in_loop
from packages import make_wheel

from burla.nodelet.core.sources import Sources
from burla.nodelet.shell.environments import Store
from burla.nodelet.shell.installing import InstallError
from burla.nodelet.shell.standing import read_requirements, standing


@pytest.fixture
def house(tmp_path: Path) -> Sources:
    """Return a wheelhouse with two tiny packages."""
    make_wheel(tmp_path / "house", "tiny-a", "1.0", {"tiny_a.py": "V = 1"}, ["tiny-b"])
    make_wheel(tmp_path / "house", "tiny-b", "2.0", {"tiny_b.py": "V = 2"})
    (tmp_path / "packages").mkdir()
    return Sources(wheelhouse=str(tmp_path / "house"))


@in_loop
async def test_they_are_there_with_what_they_require_and_held(
    house: Sources, tmp_path: Path
) -> None:
    directory, said = str(tmp_path / "packages"), list[str]()
    async with standing(directory, house, ["tiny-a"], said.append) as place:
        there = await asyncio.to_thread(os.listdir, place)
        assert {"tiny_a.py", "tiny_b.py"} < set(there)
        assert Store(directory).prune(0) == []
    again = list[str]()
    async with standing(directory, Sources(wheelhouse="/gone"), ["tiny-a"], again.append) as other:
        assert other == place  # without asking for anything
    assert (said[0], again) == ("installing tiny-a", [])
    assert len(Store(directory).prune(0)) == 1


@pytest.mark.parametrize("wrong", ["tiny-c==1.0", "tiny-a>=7"])
@in_loop
async def test_what_cannot_be_had_is_named(house: Sources, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InstallError, match=f"packages of this node: .*{wrong[:6]}"):
        async with standing(str(tmp_path / "packages"), house, [wrong], print):
            pass


def test_a_file_lists_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nnumpy==2.1  # pinned\n\npandas>=2 ; python_version > '3'\n")
    assert read_requirements(str(file)) == ("numpy==2.1", "pandas>=2 ; python_version > '3'")
    for line in ("-e .", "a @ file:///a", "--index-url http://x"):
        file.write_text(f"{line}\n")
        with pytest.raises(ValueError, match=f"requirements.txt: '{line[:2]}"):
            read_requirements(str(file))
    with pytest.raises(ValueError, match=r"none\.txt cannot be read"):
        read_requirements(str(tmp_path / "none.txt"))
