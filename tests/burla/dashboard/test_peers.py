"""Whose a connection on loopback is: the kernel knows."""

import os
import socket
from pathlib import Path

import pytest

from burla.dashboard import peers

ROW = "   1: 0100007F:{peer:04X} 0100007F:{port:04X} {state} 0:0 00:0 0 {uid:5d} 0 1 1"


def test_a_connection_of_ours_is_known_and_one_that_is_not_there_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours:
            peer = ours.getsockname()[1]
            assert peers.is_of_this_user(port, peer)
            assert not peers.is_of_this_user(port, 1)


@pytest.mark.parametrize(
    ("uid", "state", "is_ours"),
    [
        (os.getuid(), "01", True),
        (0, "01", True),
        (54321, "01", False),
        (0, "06", False),  # has hung up: whose it was, nobody knows
    ],
)
def test_another_user_is_another_user(
    uid: int, state: str, *, is_ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SOCKETS", tmp_path / "tcp")
    assert peers.is_of_this_user(80, 5000)  # no such system tells
    row = ROW.format(peer=5000, port=80, state=state, uid=uid)
    (tmp_path / "tcp").write_text(f"  sl  local_address rem_address\n{row}\n")
    assert peers.is_of_this_user(80, 5000) is is_ours
