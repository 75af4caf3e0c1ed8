"""Why nothing answers at an address: looked at from here, once nothing has."""

import os
import socket
import sys
import threading

from .addresses import ipc_path, take_apart

LOOK_S = 2.0  # for a name server, and for a machine that may be off


def silence(address: str, waited: str) -> str:
    """Return what is said of a scheduler that has not answered, and why that is.

    Args:
        address: of the scheduler, for who connects.
        waited: for how long: "for 8 s".
    """
    why = why_unreachable(take_apart(address).endpoint)
    return f"no answer {waited}; {why}" if why else f"no answer {waited}"


def why_unreachable(endpoint: str) -> str:
    """Return what is wrong on the way to an endpoint; empty: something listens there."""
    path = ipc_path(endpoint)
    if path is not None:
        return _why_no_file(path)
    found: list[str] = []
    # a name server that is silent is waited for by libc for longer than people like
    looking = threading.Thread(target=lambda: found.append(_why_no_port(endpoint)), daemon=True)
    looking.start()
    looking.join(2 * LOOK_S)
    host = host_and_port(endpoint)[0]
    return found[0] if found else f"the name {host} cannot be looked up: no name server answers"


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Return what a tcp:// endpoint says."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


def _why_no_file(path: str) -> str:
    if not os.path.exists(path):
        return f"there is no socket file {path}"
    if sys.platform == "win32":
        return ""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(LOOK_S)
            probe.connect(path)
    except ConnectionRefusedError:
        return f"nothing listens at the socket file {path} any more"
    except OSError as error:
        return f"the socket file {path} cannot be used: {error.strerror or error}"
    return ""


def _why_no_port(endpoint: str) -> str:
    host, port = host_and_port(endpoint)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"the name {host} leads to no address ({why}), check its spelling"
    try:
        socket.create_connection((host, port), LOOK_S).close()
    except ConnectionRefusedError:
        return f"nothing listens at {host}:{port} (connection refused)"
    except TimeoutError:
        return f"{host}:{port} does not react: a firewall, or a machine that is off"
    except OSError as error:
        return f"{host}:{port} cannot be reached: {error.strerror or error}"
    return ""
