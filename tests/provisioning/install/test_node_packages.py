"""What nodes are given once for all: exact versions, and of a wheelhouse what is needed."""

import hashlib
import sys
from pathlib import Path

import pytest
from packages import make_wheel

from burla.provisioning.core.machines import BadConfig, ProvisioningError
from burla.provisioning.install.node_packages import NodePackages, find

PYTHON = "3.11"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a folder of tiny wheels."""
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "house", "tiny-a", version, {"tiny_a.py": ""}, ["tiny_b"])
    make_wheel(tmp_path / "house", "tiny-b", "0.5", {"tiny_b.py": ""})
    make_wheel(tmp_path / "house", "tiny-c", "0.5", {"tiny_c.py": ""})
    return tmp_path / "house"


def test_nobody_is_asked_for_nothing() -> None:
    assert find([], [], PYTHON, "", "auto", Path("/nowhere")) == NodePackages()


def test_of_a_wheelhouse_what_is_needed_is_shipped(house: Path, tmp_path: Path) -> None:
    found = find(["tiny-a<2"], [], PYTHON, "", str(house), tmp_path)
    assert found.pins == ("tiny-a==1.0", "tiny-b==0.5")
    files = ["tiny_a-1.0-py3-none-any.whl", "tiny_b-0.5-py3-none-any.whl"]
    assert sorted(found.paths) == files
    content = (house / files[0]).read_bytes()
    assert found.digests[files[0]] == hashlib.sha256(content).hexdigest()


def test_what_was_found_before_stays(house: Path, tmp_path: Path) -> None:
    before = ["tiny-a==1.0", "tiny-b==0.5"]
    found = find(["tiny-a"], before, PYTHON, "", str(house), tmp_path)
    assert found.pins == tuple(before)
    assert find(["tiny-a"], before, PYTHON, "", "", tmp_path).pins == tuple(before)


def test_what_no_wheelhouse_has_is_refused_by_name(house: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"node\.packages cannot be had .*tiny-d.*: "):
        find(["tiny-d"], [], PYTHON, "", str(house), tmp_path)
    with pytest.raises(ProvisioningError, match="there is no such folder"):
        find(["tiny-a"], [], PYTHON, "", str(house / "none"), tmp_path)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("/usr/bin/python: No module named pip", "there is no pip here"),
        ("WARNING: Retrying (Retry(total=4 ...\nERROR: No matching distribution", "no index"),
    ],
)
def test_nodes_look_for_themselves_if_it_cannot_be_found_out_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, text: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = find(["tiny-a"], [], PYTHON, "", "", tmp_path)
    assert found.pins == ("tiny-a",)
    assert text in found.warning
