"""Where a scheduler listens: the endpoints of its two sockets, and their files."""

import contextlib
import socket
from pathlib import Path

import zmq

from burla.transport.addresses import ANY_HOST

from .channel import Channel

LOCAL_BACKLOG = 64  # see door.py
PORT_MAX = 65535


def bind_both(router: zmq.Socket[bytes], channel: Channel, bind: str) -> tuple[str, str]:
    """Bind both sockets; return their endpoints as others can connect to them."""
    if bind.startswith("ipc://"):
        router.setsockopt(zmq.BACKLOG, LOCAL_BACKLOG)  # who comes in a crowd tries again
        router.bind(bind)
        return bind, channel.bind(f"{bind}.pub", ipv6=True)
    ipv6 = "[" in bind  # else an IPv4 endpoint is told as [::ffff:127.0.0.1]
    router.setsockopt(zmq.IPV6, int(ipv6))
    router.bind(bind)
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
    host, _, port = endpoint.rpartition(":")
    if not bind.endswith(":0") and int(port) < PORT_MAX:
        with contextlib.suppress(zmq.ZMQError):  # taken: any other does, and is told
            return endpoint, channel.bind(f"{host}:{int(port) + 1}", ipv6=ipv6)
    return endpoint, channel.bind(f"{host}:0", ipv6=ipv6)


def named(endpoint: str) -> str:
    """Return an endpoint that others can try: one that listens everywhere by this host's name."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{socket.gethostname()}:{port}" if host in ANY_HOST else endpoint


def unlink(bind: str) -> None:
    """Remove the files of an ipc endpoint; libzmq leaves them when it is stopped hard."""
    if bind.startswith("ipc://"):
        for endpoint in (bind, f"{bind}.pub"):
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
