"""What `burla up` has made: written, read again, and refused in words if somebody changed it."""

from pathlib import Path

import pytest

from burla.provisioning import state
from burla.provisioning.config import parse
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.state import State


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path))


def test_what_is_written_is_read_again() -> None:
    config = parse({"name": "lab", "ssh": {"hosts": ["a"]}, "grow": {"prices": {"n2": 1}}})
    made = State(config, "burla://h:1?key=k", {"a": "root@a"})
    state.write(made)
    assert state.read("lab") == made
    assert state.read("other") is None


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    new = tmp_path / "lab" / f"{state.FILE}.new"
    new.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        state.write(State(parse({"name": "lab"}), "", {}))
    assert caught.value.filename == str(new)


@pytest.mark.parametrize("text", ["", "{}", '{"config": {"nane": 1}}', '{"config": {"join_s": 0}}'])
def test_a_file_that_is_not_ours_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab" / state.FILE
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BadConfig, match=r"cluster\.json is not what `burla up` wrote"):
        state.read("lab")
