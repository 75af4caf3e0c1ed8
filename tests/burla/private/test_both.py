"""What the daemon of a private cluster says when it cannot go on."""

import errno
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from burla.private import both
from burla.system.owner import Owner


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back that a daemon sets, which has its process to itself."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)


def test_what_the_machine_lacks_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def lack(*parts: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(both, "_run", lack)
    owner = Owner(os.getpid(), directory=str(tmp_path))
    with handlers_kept(), caplog.at_level(logging.ERROR):
        assert both.run(f"ipc://{tmp_path}/s", owner, 1, None) == 1
    assert "no process or thread can be started" in caplog.text
    assert "Traceback" not in caplog.text
