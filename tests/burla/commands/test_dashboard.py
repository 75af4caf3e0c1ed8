"""`burla dashboard`: which clusters it shows, what it prints, and what it needs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burla import cli
from burla.commands.private_clusters import PrivateCluster
from burla.dashboard.places import Place
from burla.system.owner import Owner

Serve = dict[str, Any]


class _AtOnce:
    """A thread that has ended when it is started."""

    def __init__(self, *, target: Callable[..., None], args: tuple[str, ...], daemon: bool) -> None:
        assert daemon
        self.start = lambda: target(*args)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Serve:
    """Return what would have been served; nothing is."""
    seen: Serve = {}

    def serve(find: Callable[[], list[Place]], port: int, announce: Callable[..., None]) -> None:
        seen.update(places=find(), port=port)
        announce("http://127.0.0.1:5/?token=t", "http://127.0.0.1:5/?token=once", 5)

    def open_browser(url: str) -> None:
        seen["opened"] = url

    monkeypatch.setattr("burla.dashboard.serving.serve", serve)
    monkeypatch.setattr("webbrowser.open", open_browser)
    monkeypatch.setattr("threading.Thread", _AtOnce)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("burla.commands.private_clusters.running", list)
    monkeypatch.setenv("BURLA_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("BURLA_CLUSTER", "BURLA_STATE_DIR", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    return seen


def test_without_a_cluster_the_private_ones_are_shown(
    served: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = PrivateCluster("ipc:///p/s", "/p", Owner(77, 1))
    monkeypatch.setattr("burla.commands.private_clusters.running", lambda: [one])
    assert cli.main(["dashboard"]) == 0
    (place,) = served["places"]
    assert (place.key, place.name) == ("_77", "private cluster of process 77")
    assert place.why_gone() == one.why_gone()
    assert not place.is_meant
    assert served["opened"] == "http://127.0.0.1:5/?token=once"  # all users see it: it counts once
    said = capsys.readouterr().out
    assert "The dashboard is at http://127.0.0.1:5/?token=t\n" in said
    assert "once" not in said.split("\n")[0]


def test_the_cluster_in_use_comes_first(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "ipc:///s")
    assert cli.main(["dashboard", "--no-browser", "--port", "8123"]) == 0
    assert [(p.key, p.address, p.is_meant) for p in served["places"]] == [("_", "ipc:///s", True)]
    assert served["port"] == 8123
    assert "opened" not in served


def test_over_ssh_it_is_told_how_to_get_there(
    served: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "a 1 b 2")
    assert cli.main(["dashboard"]) == 0
    assert "ssh -L 5:127.0.0.1:5 " in capsys.readouterr().out
    assert "opened" not in served


def test_without_a_screen_no_browser_takes_the_terminal(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cli.main(["dashboard"]) == 0
    assert "opened" not in served


def test_what_is_missing_is_named_with_the_extra_that_has_it(
    served: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert cli.main(["dashboard"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "burla: `burla dashboard` needs starlette, which is not installed:"
        " pip install 'burla[dashboard]'\n"
    )


def test_an_address_that_is_none_is_told_before_anything_is_served(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", "nonsense")
    assert cli.main(["dashboard"]) != 0
    assert served == {}


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["dashboard", "--no-browser", "--port", str(port)]) != 0
    assert (
        f"--port is {port}: it must be a port of 127.0.0.1 that is free" in capsys.readouterr().err
    )
