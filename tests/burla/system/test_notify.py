"""What a daemon tells systemd, over a real socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from burla.system.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The end that systemd has."""
    name = f"{tmp_path}/n" if request.param == "path" else f"@{tmp_path}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(name.replace("@", "\0"))
        end.settimeout(5)
        yield end


def test_it_says_that_it_serves_and_beats_three_times_in_the_time(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    times_s = iter((10.0, 10.5, 10.9, 11.0, 11.1, 12.5))
    notifier = Notifier(lambda: next(times_s))
    notifier.ready()
    for _ in range(6):
        notifier.alive()
    notifier.ready()
    said = [manager.recv(100) for _ in range(5)]
    assert said == [b"READY=1", *[b"WATCHDOG=1"] * 3, b"READY=1"]


def test_without_a_watchdog_it_does_not_beat(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.alive()
    notifier.ready()
    assert manager.recv(100) == b"READY=1"


def test_a_manager_that_is_gone_hinders_nobody(manager: socket.socket) -> None:
    manager.close()
    Notifier().ready()


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    notifier = Notifier()
    notifier.ready()
    notifier.alive()
