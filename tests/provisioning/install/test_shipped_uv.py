"""Whether bootstrap.sh installs with the uv of a wheelhouse; uv and pip only tell their words."""

import hashlib
import os
import platform
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from wanted import MINOR

from burla.provisioning.install import bootstrap
from burla.provisioning.install.wheels import WHEEL

HERE = f"manylinux_2_17_{platform.machine()}"


@dataclass
class Machine:
    """A folder with a wheelhouse, and an environment whose Python only tells its words."""

    place: Path

    def __post_init__(self) -> None:
        self.house.mkdir()
        python = self.place / "node/venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho pip {self._told} >> {self.place}/said\n")
        python.chmod(0o755)

    _told = '"$@" index=${UV_INDEX_URL-none}'

    @property
    def house(self) -> Path:
        return self.place / "house"

    def has_uv(self, status: int = 0, version: str = "0.9", platform: str = HERE) -> str:
        """Put a uv into the wheelhouse; return its hash."""
        wheel = self.house / f"uv-{version}-py3-none-{platform}.whl"
        script = f"#!/bin/sh\necho uv {version} {self._told} >> {self.place}/said\nexit {status}\n"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"uv-{version}.data/scripts/uv", script)
        return hashlib.sha256(wheel.read_bytes()).hexdigest()

    def install(self, requirements: str | None = None, *more: str) -> list[str]:
        """Install; return what was run, with what."""
        node, wheel = self.place / "node", self.place / WHEEL
        line = ["sh", str(bootstrap.SCRIPT), "install", "--directory", str(node)]
        line += ["--python", MINOR, "--wheel", str(wheel), *more]
        if requirements is not None:
            (self.place / "pins.txt").write_text(requirements)
            line += ["--requirements", str(self.place / "pins.txt")]
        environment = os.environ | {"UV_INDEX_URL": "https://elsewhere/simple"}
        subprocess.run(line, check=True, capture_output=True, env=environment)
        assert not (node / "tmp").exists()
        return (self.place / "said").read_text().splitlines()

    def from_house(self, requirements: str | None = None) -> list[str]:
        return self.install(requirements, "--wheelhouse", str(self.house))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_wheelhouse_that_is_believed_installs_with_its_uv(machine: Machine) -> None:
    machine.has_uv()
    (said,) = machine.from_house()
    assert said.startswith("uv 0.9 --quiet --no-config --offline ")
    assert f"--no-build --no-index --find-links {machine.house} {machine.place}/{WHEEL}" in said
    assert "hashes" not in said
    assert said.endswith("index=none")  # no setting of the machine's says otherwise


def test_of_pinned_wheels_it_takes_the_uv_that_is_pinned_and_has_hashes_looked_at(
    machine: Machine,
) -> None:
    digest = machine.has_uv()
    machine.has_uv(version="0.10")  # another one
    (said,) = machine.from_house(f"burla --hash=sha256:0\nuv==0.9 --hash=sha256:{digest}\n")
    assert said.startswith("uv 0.9 ")
    assert "--no-index " in said
    assert "requirements.txt --require-hashes" in said


def test_a_uv_that_is_not_pinned_never_runs(machine: Machine) -> None:
    machine.has_uv()
    (said,) = machine.from_house("burla --hash=sha256:0\nuv==0.9 --hash=sha256:0\n")
    assert said.startswith("pip ")
    assert "--require-hashes" in said


def test_a_uv_for_other_machines_is_left_alone(machine: Machine) -> None:
    machine.has_uv(platform="macosx_11_0_arm64")
    machine.has_uv(platform="manylinux_2_17_s390x")
    assert [line.split()[0] for line in machine.from_house()] == ["pip"]


def test_what_uv_cannot_do_pip_does(machine: Machine) -> None:
    machine.has_uv(status=1)
    assert [line.split()[0] for line in machine.from_house()] == ["uv", "pip"]


def test_without_a_wheelhouse_pip_asks_the_index(machine: Machine) -> None:
    machine.has_uv()
    (said,) = machine.install(None, "--index", "https://here/simple")
    assert said.startswith("pip ")
    assert "--index-url https://here/simple" in said
