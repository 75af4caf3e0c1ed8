"""The head of a cluster in one file, and back."""

import io
import stat
import tarfile
from pathlib import Path

import msgspec
import pytest

from burla.provisioning import backup, state
from burla.provisioning.config import ClusterConfig
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.keys import Keys
from burla.provisioning.state import State
from burla.scheduler.auth.key_store import KeyStore


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Have a cluster with keys, and beside them what daemons make anew."""
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path / "config"))
    lab = State(ClusterConfig(name="lab"), "burla://h:1?key=" + "ab" * 32)
    state.write(lab)
    directory = state.directory_of("lab")
    keys = Keys(directory / "keys")
    keys.make()
    keys.let_in_user()
    (directory / "keys/audit.log").write_text("{}\n")
    for name in (
        "scheduler.pid",
        "scheduler.child",
        "scheduler.sh",
        "scheduler.log",
        "scheduler.log.1",
        "local-1.ready",
        "s",
    ):
        (directory / name).write_text("of today")
    (directory / "local-1.key").write_text("secret")
    return lab


def test_what_is_saved_comes_back_and_nothing_else(lab: State, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    made = backup.save(lab, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(made.files) == [
        *("cluster.json", "keys/audit.log", "keys/keys.json", "keys/server.key", "local-1.key"),
    ]
    directory = state.directory_of("lab")
    keys = KeyStore(directory / "keys")
    before = {path: (directory / path).read_bytes() for path in made.files}
    pair, table = keys.server_pair(), keys.read()
    with pytest.raises(BadConfig, match="there is a cluster 'lab' here already"):
        backup.restore(file)
    state.forget("lab")
    assert backup.restore(file) == made
    assert {path: (directory / path).read_bytes() for path in made.files} == before
    assert (keys.server_pair(), keys.read()) == (pair, table)  # refused if others could read them
    assert state.read("lab") == lab
    assert not (directory / "scheduler.pid").exists()


def test_a_file_is_never_replaced_and_none_is_left_half_written(lab: State, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_text("precious")
    with pytest.raises(BadConfig, match="is there already"):
        backup.save(lab, file)
    assert file.read_text() == "precious"
    with pytest.raises(BadConfig, match="cannot write"):
        backup.save(lab, tmp_path / "nowhere/b")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["b.tar.gz"]


def packed(file: Path, **files: bytes) -> Path:
    with tarfile.open(file, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file


def manifest(**said: object) -> bytes:
    facts = {"format": 1, "burla": "0", "cluster": "lab", "address": "", "made": "", "files": {}}
    return msgspec.json.encode(facts | said)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "is not a backup of a cluster"),
        ({backup.MANIFEST: b"x"}, "is not a backup of a cluster"),
        ({backup.MANIFEST: manifest(format=3)}, "restore it with that version"),
        ({backup.MANIFEST: manifest(cluster="../lab")}, "is not a backup of a cluster"),
        ({backup.MANIFEST: manifest(files={"cluster.json": "0"})}, "is damaged: cluster.json"),
        ({"../x": b""}, "does not belong into a backup"),
        ({"/x": b""}, "does not belong into a backup"),
        ({"a/../../x": b""}, "does not belong into a backup"),
    ],
)
def test_what_is_no_backup_brings_nothing(
    lab: State, tmp_path: Path, files: dict[str, bytes], why: str
) -> None:
    state.forget("lab")
    with pytest.raises(BadConfig, match=why):
        backup.restore(packed(tmp_path / "b", **files))
    assert not state.directory_of("lab").exists()
    assert not (tmp_path / "x").exists()


def test_what_is_cut_off_or_not_there_is_said(lab: State, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    backup.save(lab, file)
    file.write_bytes(file.read_bytes()[:-400])
    state.forget("lab")
    for path in (file, tmp_path / "nosuch", tmp_path):
        with pytest.raises(BadConfig, match=r"is not a backup that can be read|is damaged"):
            backup.restore(path)
    assert not state.directory_of("lab").exists()
