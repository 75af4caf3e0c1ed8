"""Where `burla.shared` is."""

import pytest

import burla
from burla import shared_files


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be set."""
    for name in (shared_files.VARIABLE, "BURLA_CLUSTER", "BURLA_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shared_files, "_told", {})


def test_the_variable_goes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared_files.VARIABLE, "/data")
    assert burla.shared == "/data"


def test_a_cluster_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(address: str) -> str:
        asked.append(address)
        return "/mnt/data"

    monkeypatch.setattr(shared_files, "_ask", ask)
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///x")
    assert (burla.shared, burla.shared, asked) == ("/mnt/data", "/mnt/data", ["ipc:///x"])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BURLA_CLUSTER", "ipc:///x", "ipc:///x has no file system in common: name it in the"),
        ("BURLA_JOB_ID", "1", "the nodes have no file system in common: name it in the"),
        ("NOTHING", "", "a private cluster has the files of this machine"),
    ],
)
def test_where_there_is_none_it_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setattr(shared_files, "_ask", lambda address: "")
    monkeypatch.setattr(
        shared_files, "cluster_address", lambda: value if name[6:] == "CLUSTER" else None
    )
    monkeypatch.setenv(name, value)
    with pytest.raises(burla.NoSharedFiles, match=says):
        _ = burla.shared
