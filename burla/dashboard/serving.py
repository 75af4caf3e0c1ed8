"""The server on loopback, and its end."""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from burla.errors import BadSetting

from .app import Dashboard
from .guard import TOKEN
from .places import Place, Places

LOOPBACK = "127.0.0.1"
END_S = 1  # for streams, which have no end of their own
CONNECTIONS_MAX = 100


class _Server(uvicorn.Server):
    """Ends the streams first: it would wait for them."""

    def __init__(self, config: uvicorn.Config, dashboard: Dashboard) -> None:
        super().__init__(config)
        self._dashboard = dashboard

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self._dashboard.end()
        super().handle_exit(number, frame)


def serve(
    find: Callable[[], list[Place]], port: int, announce: Callable[[str, str, int], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        find: returns which clusters there are.
        port: of loopback; 0: any that is free.
        announce: is called once it is served: with the address for people, the one for a browser
            that is started, which counts once, and the port.

    Raises:
        BadSetting: the port is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            expected = f"a port of {LOOPBACK} that is free, or 0 for any; {error.strerror}"
            raise BadSetting("--port", port, expected) from None
        listener.listen(CONNECTIONS_MAX)
        at = listener.getsockname()[1]
        dashboard = Dashboard(Places(find))
        guard = dashboard.application(at)
        config = uvicorn.Config(
            guard,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=END_S,
            proxy_headers=False,
        )
        address = f"http://{LOOPBACK}:{at}/?{TOKEN}="
        announce(address + guard.token, address + guard.first_token, at)
        # what ends it is raised again when all is closed: both signals as this
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                _Server(config, dashboard).run(sockets=[listener])
        finally:
            dashboard.close()
