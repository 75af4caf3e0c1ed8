"""What is wrong on the way to a scheduler that does not answer."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from burla.protocol import admin_messages as am, messages as m
from burla.transport import reaching
from burla.transport.reaching import why_unreachable
from burla.transport.request import NoAnswer, ask


@pytest.fixture
def taken() -> Any:
    """Return a port at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_where_something_listens_nothing_is_wrong(taken: int, tmp_path: Path) -> None:
    assert why_unreachable(f"tcp://127.0.0.1:{taken}") == ""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert why_unreachable(f"ipc://{tmp_path}/s") == ""


def test_a_port_where_nobody_listens(free: int) -> None:
    why = f"nothing listens at 127.0.0.1:{free} (connection refused)"
    assert why_unreachable(f"tcp://127.0.0.1:{free}") == why


def test_a_name_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*told: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    why = "the name h leads to no address (Name or service not known), check its spelling"
    assert why_unreachable("tcp://h:7270") == why


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over, asked = threading.Event(), []

    def getaddrinfo(*told: object, **more: object) -> None:
        asked.append(threading.current_thread())
        over.wait(20)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(reaching, "LOOK_S", 0.001)
    assert "no name server answers" in why_unreachable("tcp://h:7270")
    over.set()
    wait_until(lambda: bool(asked), "it was asked")
    asked[0].join(20)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "h:1 does not react: a firewall, or a machine that is off"),
        (OSError(113, "No route to host"), "h:1 cannot be reached: No route to host"),
    ],
)
def test_a_machine_that_is_away(error: OSError, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_connection(*told: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", lambda *told, **more: [])
    monkeypatch.setattr(socket, "create_connection", create_connection)
    assert why_unreachable("tcp://h:1") == why


def test_a_socket_file_that_is_not_there_or_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert why_unreachable(f"ipc://{path}") == f"there is no socket file {path}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    why = f"nothing listens at the socket file {path} any more"
    assert why_unreachable(f"ipc://{path}") == why


def test_who_asks_is_told_why_nothing_answers(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"no answer within 0 s; there is no socket file /"):
        ask(f"ipc://{tmp_path}/s", None, m.ListNodes(), m.Nodes, am.SchedulerToAdmin, 0.01)
