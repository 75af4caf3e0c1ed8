"""A user of their own for each test of the commands; and a watch over what leaves this machine."""

import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from users import User
from wanted import CACHE

LOOPBACK = ("127.", "::1")
_asked: list[str] | None = None  # hosts besides loopback that were asked for; None: nobody watches


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what can be made again with that of all tests, not with that of who runs them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


@pytest.fixture
def user() -> Iterator[User]:
    """Give a user a home with a short path: a socket's may have 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as home:
        yield User(Path(home))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _asked is None:
        return
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        host = str(arguments[1][0])
    elif event == "socket.getaddrinfo":
        host = str(arguments[0])
    else:
        return
    if not host.startswith(LOOPBACK):
        _asked.append(host)


sys.addaudithook(_watch)


@pytest.fixture
def loopback_only() -> Iterator[None]:
    """Assert that nothing leaves this machine."""
    global _asked
    asked: list[str] = []
    _asked = asked
    yield
    _asked = None
    assert asked == []


@pytest.fixture
def loopback_watch(loopback_only: None) -> list[str]:
    """Return what the watch has seen, to be emptied by who tries it."""
    assert _asked is not None
    return _asked
