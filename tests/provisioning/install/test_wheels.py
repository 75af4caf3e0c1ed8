"""The wheel that is made from the running burla is one that pip takes."""

import base64
import io
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from burla.provisioning.core.machines import ProvisioningError
from burla.provisioning.install import wheels

ROOT = Path(__file__).parents[3]


def test_the_same_files_make_the_same_wheel() -> None:
    assert wheels.make_wheel() == wheels.make_wheel()


def test_it_holds_every_room_and_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(wheels.make_wheel())
    archive = zipfile.ZipFile(tmp_path / "w.whl")
    assert archive.testzip() is None
    names = set(archive.namelist())
    for folder, room in (("scheduler", "burla/scheduler"), ("nodelet", "burla/nodelet")):
        expected = {f"{room}/{file.name}" for file in (ROOT / folder).glob("*.py")}
        assert expected <= names
    data = {"burla/py.typed", "burla/commands/schema.json", "burla/commands/skill.md"}
    assert {*data, "burla/provisioning/install/bootstrap.sh"} <= names
    metadata = archive.read(f"{wheels.INFO}/METADATA").decode()
    assert "Requires-Dist: pyzmq" in metadata
    assert "burla-nodelet = " in archive.read(f"{wheels.INFO}/entry_points.txt").decode()


@pytest.mark.slow
def test_pip_installs_it(tmp_path: Path) -> None:
    made = tmp_path / wheels.WHEEL
    made.write_bytes(wheels.make_wheel())
    line = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--target"]
    done = subprocess.run([*line, tmp_path / "site", made], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = "import burla.nodelet.cli as c; print(c.__file__)"
    said = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r});{code}",
        ],
        capture_output=True,
        text=True,
    )
    assert said.stdout.startswith(str(tmp_path)), said.stderr


def test_a_wheelhouse_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match="no such folder"):
        wheels.gather(tmp_path, str(tmp_path / "nowhere"), "3.11")


def test_a_wheelhouse_goes_along_but_for_another_burla(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    for name in ("zmq-1-py3-none-any.whl", "burla-0.0.1-py3-none-any.whl"):
        (house / name).touch()
    made = wheels.gather(tmp_path, str(house), "3.11")
    assert sorted(made.paths) == [wheels.WHEEL, "zmq-1-py3-none-any.whl"]
    assert made.is_wheelhouse


def test_our_wheel_packed_in_parts_is_whole_and_fits_into_metadata() -> None:
    parts = wheels.packed_wheel(100_000)
    assert max(map(len, parts)) <= 100_000
    wheel = lzma.decompress(base64.b85decode("".join(parts)))
    assert wheel == wheels.make_wheel(compress=False, for_node=True)
    assert sum(map(len, parts)) < 480_000  # 512 KB with all else that a cloud machine is told


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep wheels in a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheels.xz_for_node.cache_clear()
    yield tmp_path / "burla/wheels"
    wheels.xz_for_node.cache_clear()


def again() -> bytes:
    """Return our wheel for a node, as a later run finds it."""
    wheels.xz_for_node.cache_clear()
    return lzma.decompress(wheels.xz_for_node())


def test_the_wheel_for_nodes_is_made_once_for_all_runs(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_sources", lambda: [("burla/x.py", b"X = 1")])
    made = again()
    assert made == wheels.make_wheel(compress=False, for_node=True)
    (file,) = kept.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    whole = file.read_bytes()
    file.write_bytes(lzma.compress(b"found"))
    assert again() == b"found"
    file.write_bytes(whole[: len(whole) // 2])  # the disk was full
    assert again() == made
    assert file.read_bytes() == whole


def test_other_sources_make_another_wheel_and_few_are_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(wheels.KEPT_MAX + 2):
        source = f"X = {number}".encode()
        monkeypatch.setattr(wheels, "_sources", lambda source=source: [("burla/x.py", source)])
        made = zipfile.ZipFile(io.BytesIO(again()))
        assert made.read("burla/x.py") == source
    assert len(list(kept.iterdir())) == wheels.KEPT_MAX


def test_where_nothing_can_be_kept_the_wheel_is_made_all_the_same(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_sources", lambda: [("burla/x.py", b"")])
    kept.parent.write_text("a file in the way")
    assert zipfile.is_zipfile(io.BytesIO(again()))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert zipfile.is_zipfile(io.BytesIO(again()))


def test_a_wheel_for_a_node_has_all_but_what_makes_machines() -> None:
    whole, node = (
        zipfile.ZipFile(io.BytesIO(wheels.make_wheel(for_node=for_node)))
        for for_node in (False, True)
    )
    left_out = set(whole.namelist()) - set(node.namelist())
    assert {name for name in left_out if name.count("/") == 1} == {
        name for name in wheels.NOT_FOR_NODES if not name.endswith("/")
    }
    gone = {name.removesuffix(".py").split("/")[-1] for name in left_out if name.count("/") == 1}
    for name in (name for name in node.namelist() if name.endswith(".py")):
        imports = [line for line in node.read(name).decode().splitlines() if "import" in line]
        for line in imports:  # what is there needs nothing that is not
            assert not any(f"burla.{one} " in f"{line} " for one in gone), (name, line)
            if name.count("/") == 1 and line.split()[:1] == ["from"]:
                assert line.split()[1] not in {f".{one}" for one in gone}, (name, line)
    commands = node.read(f"{wheels.INFO}/entry_points.txt").decode()
    assert "burla-nodelet" in commands
    assert "burla = " not in commands
