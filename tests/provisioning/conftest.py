"""A user of their own for each test of the commands."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from users import User


@pytest.fixture
def user() -> Iterator[User]:
    """Give a user a home with a short path: a socket's may have 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as home:
        yield User(Path(home))
