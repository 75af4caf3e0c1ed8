"""`burla login` and `burla auth`, as a script runs them."""

import errno
import json
import os
import shlex
from pathlib import Path

import pytest

from burla import errors
from burla.cli import main
from burla.config import cluster_address
from burla.provisioning import state
from burla.provisioning.config import ClusterConfig
from burla.provisioning.state import State
from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.cli import main as scheduler
from burla.transport.addresses import full_address
from burla.transport.keys import load_pair, write_private

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("BURLA_CLUSTER", raising=False)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    """Return the JSON that a command prints."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_init_prints_the_address_that_login_takes(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scheduler(["init"]) == 0
    address = capsys.readouterr().out.strip()
    assert scheduler(["init", "--json"]) == 0  # the keys stay
    assert json.loads(capsys.readouterr().out)["address"] == address
    first = said(capsys, "login", address)
    assert isinstance(first, dict)
    assert cluster_address() == address
    assert first["key"] == load_pair(str(directory / "user.key")).public.hex()
    assert said(capsys, "login", address) == first
    assert main(shlex.split(first["command"])[1:]) == 0
    capsys.readouterr()
    rows = said(capsys, "auth", "list")
    assert isinstance(rows, list)
    assert [(row["key"], row["role"], row["revoked"]) for row in rows] == [
        (first["key"], "client", None)
    ]


def test_login_keeps_what_else_is_in_the_settings(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "config.toml").write_text('# mine\ncluster = "ipc:///old"\n# yours\n')
    assert main(["login", "ipc:///new"]) == 0
    assert cluster_address() == "ipc:///new"
    text = (directory / "config.toml").read_text()
    assert "# mine" in text
    assert "# yours" in text
    assert "old" not in text
    assert not (directory / "user.key").exists()  # none is needed


def test_keys_are_added_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler(["init"])
    capsys.readouterr()
    assert said(capsys, "auth", "add", KEY.upper(), "--user", "anna", "--role", "admin") == {
        "key": KEY,
        "user": "anna",
        "role": "admin",
        "in_force": None,  # no scheduler runs
    }
    assert said(capsys, "auth", "revoke", KEY[:8]) == {"revoked": [KEY], "in_force": None}
    assert main(["auth", "list"]) == 0
    assert "revoked anna" in capsys.readouterr().out


def test_a_token_is_printed_once_and_stored_nowhere(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler(["init"])
    capsys.readouterr()
    assert main(["auth", "token"]) == 0
    token = capsys.readouterr().out.strip()
    assert len(bytes.fromhex(token)) == 32
    for path in directory.rglob("*"):
        assert path.is_dir() or token not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["auth", "list"], 69, "init"),
        (["auth", "add", KEY, "--user", "x"], 69, "init"),
        (["auth", "add", "short", "--user", "x"], 2, "64 hexadecimal digits"),
        (["auth", "add", KEY], 2, "--user"),
        (["login", "tcp://h:1"], 78, "goes without keys"),
        (["login", f"burla://h:1?key={KEY[1:]}"], 78, "64 digits"),
        (["login"], 2, "ADDRESS"),
        (["login", "ipc:///s", "--cluster", "lab"], 2, "ADDRESS"),
        (["login", "--cluster", "lab"], 69, "there is no cluster 'lab' (none is known here)"),
        (["auth", "list", "--cluster", "lab", "--dir", "/x"], 2, "pass one of them"),
        (["auth", "list", "--dir", "/nowhere"], 78, "init"),
        (["nodes", "list"], 78, "--cluster"),
        (["nodes", "list", "--cluster", "lab"], 69, "there is no cluster 'lab'"),
        (["nodes", "list", "--cluster", "tcp://h:1"], 78, "goes without keys"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert words in capsys.readouterr().err


def test_who_is_not_there_cannot_be_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler(["init"])
    assert main(["auth", "revoke", "nobody"]) == 1
    assert "no key or user is called nobody" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_is_no_wrong_directory(
    number: int,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert scheduler(["init", "--bind", "tcp://127.0.0.1:1"]) == 0

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number), "keys.json")

    monkeypatch.setattr(os, "replace", refuse)
    assert main(["auth", "token"]) == 1
    said = capsys.readouterr().err
    assert f"{os.strerror(number)}: keys.json" in said
    assert "--dir" not in said


def test_keys_are_never_cut_off_by_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(OSError, match="No space left"):
        write_private(str(tmp_path / "keys"), "text", replace=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bind", ["ipc:///tmp/s", "tcp://127.0.0.1:0", "nonsense"])
def test_init_wants_to_know_where_the_scheduler_will_be(
    bind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        scheduler(["init", "--bind", bind])
    assert left.value.code == 2
    assert "--bind" in capsys.readouterr().err


def test_settings_that_are_no_settings_stay_as_they_are(directory: Path) -> None:
    (directory / "config.toml").write_text("clusters = 1\n")
    assert main(["login", "ipc:///new"]) == 78
    assert (directory / "config.toml").read_text() == "clusters = 1\n"
    with pytest.raises(errors.BadSetting):
        cluster_address()


def test_the_line_that_login_prints_finds_the_cluster_among_several(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user is called as shells hate it; the head has two clusters with keys."""
    for name in ("one", "two"):
        made = directory / "state" / name
        KeyStore(made / "keys").make()
        state.write(State(ClusterConfig(name=name), full_address("tcp://h:1", key_of(made))))
    address = state.read("two").address  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGNAME", "o'hara; rm x")
        line = said(capsys, "login", address.replace("//h:", "//behind-nat:"))["command"]  # type: ignore[index]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURLA_CLUSTER", "")  # the administrator uses none, or another
        patch.delenv("BURLA_CLUSTER")
        (directory / "config.toml").unlink()
        assert main(["auth", "list"]) == 69
        assert "say which cluster is meant" in capsys.readouterr().err
        assert main(shlex.split(line)[1:]) == 0
        capsys.readouterr()
        assert said(capsys, "auth", "list", "--cluster", "one") == []
        rows = said(capsys, "auth", "list", "--cluster", "two")
    assert [row["user"] for row in rows] == ["o'hara; rm x"]  # type: ignore[attr-defined]


def test_quotas_are_set_shown_and_forgotten(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler(["init"])
    assert main(["auth", "add", KEY, "--user", "anna"]) == 0
    capsys.readouterr()
    nothing = {"jobs": None, "inputs": None, "bytes": None, "opens": None}
    assert said(capsys, "auth", "quota") == [{"user": None, **nothing}]
    said(capsys, "auth", "quota", "--jobs", "7")
    said(capsys, "auth", "quota", "anna", "--bytes", "2G")
    assert said(capsys, "auth", "quota", "anna", "--inputs", "5") == [
        {"user": None, **nothing, "jobs": 7},
        {"user": "anna", **nothing, "inputs": 5, "bytes": 2 << 30},
    ]
    assert (directory / "scheduler/quotas.json").stat().st_mode & 0o077 == 0
    rows = said(capsys, "auth", "quota", "anna", "--reset", "--jobs", "1")
    assert isinstance(rows, list)
    assert rows[1] == {"user": "anna", **nothing, "jobs": 1}
    assert main(["auth", "quota", "bob"]) == 0  # who may come later; a typing error is noticed
    assert "no key of 'bob' is known" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--jobs", "0"], ["--bytes", "0"], ["--bytes", "many"], ["--bytes", "-1"], ["a\nb"]]
)
def test_a_quota_is_a_positive_number_of_somebody(words: list[str]) -> None:
    scheduler(["init"])
    assert main(["auth", "quota", *words]) == 2


def key_of(made: Path) -> bytes:
    return KeyStore(made / "keys").server_pair().public
