"""What systemd hears of a daemon: that it serves, and that it still does (sd_notify(3)).

Without systemd, or in a unit that does not ask, nothing is sent.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

BEATS = 3  # so many in the time after which systemd takes the daemon for stuck


class Notifier:
    """The daemon's end of its unit's socket. What it cannot say is dropped: nobody waits for it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Take the socket and the time limit that systemd has put into the environment."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pause_s = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6 / BEATS
        self._clock_s = clock_s
        self._due_s = 0.0

    def ready(self) -> None:
        """Say that the daemon serves."""
        self._say(b"READY=1")

    def alive(self) -> None:
        """Say that it still does; to be called often, in the loop that might get stuck."""
        if self._pause_s and (now_s := self._clock_s()) >= self._due_s:
            self._due_s = now_s + self._pause_s
            self._say(b"WATCHDOG=1")

    def _say(self, word: bytes) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto(word, self._address)
