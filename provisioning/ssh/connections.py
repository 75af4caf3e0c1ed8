"""The connections that are open now, so that Ctrl-C ends what many threads do over them."""

import threading

from burla.provisioning.core.machines import ConnectionLost, Transport


class Connections:
    """Those of one command. Safe to use from any thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: list[Transport] = []
        self._lock = threading.Lock()
        self._is_ended = False

    def opened(self, transport: Transport) -> Transport:
        """Take note of a new connection, and return it.

        Raises:
            ConnectionLost: all was ended meanwhile.
        """
        with self._lock:
            if not self._is_ended:
                self._open.append(transport)
                return transport
        transport.close()
        raise ConnectionLost("interrupted")

    def end(self) -> None:
        """Close all of them, and those that would come yet."""
        with self._lock:
            self._is_ended = True
        for transport in self._open:
            transport.close()
