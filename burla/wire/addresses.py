"""What the address of a scheduler looks like: `tcp://HOST:PORT` or `ipc://PATH`. Pure.

Commands, the environment and the settings file all bring addresses as text; nothing else in the
project takes one apart.
"""

import ipaddress
import os.path
import re

# sun_path of a Unix socket has 108 bytes, the last one is a NUL; the scheduler's second socket
# lies beside the first, and is called the same with ".pub" at the end.
IPC_PATH_BYTES_MAX = 107 - len(".pub")
FORMS = "tcp://HOST:PORT or ipc://PATH"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")


class AddressError(ValueError):
    """A text that is not the address of a scheduler; repeats it and says what is wrong."""

    def __init__(self, text: str, why: str) -> None:
        """Say of `text` what is wrong with it."""
        super().__init__(f"{text!r} is not the address of a scheduler, {FORMS}: {why}")
        self.why = why


def connect_address(text: str) -> str:
    """Return `text` as an address to connect to; an ipc path becomes absolute.

    Raises:
        AddressError: `text` is nothing that one could connect to.
    """
    return _normal(text, port_min=1)


def bind_address(text: str) -> str:
    """Return `text` as an address to listen on: port 0 picks one, "localhost" becomes a number.

    Raises:
        AddressError: `text` is nothing that one could listen on.
    """
    address = _normal(text, port_min=0)
    if address.startswith("tcp://localhost:"):  # libzmq resolves no names for a bind
        return address.replace("localhost", "127.0.0.1", 1)
    return address


def ipc_path(address: str) -> str | None:
    """Return the path of an ipc address; None for others."""
    return address.removeprefix("ipc://") if address.startswith("ipc://") else None


def stays_on_this_machine(address: str) -> bool:
    """Return whether nobody but processes of this machine can reach a listener at `address`."""
    if ipc_path(address) is not None:
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name, whatever it resolves to today


def _normal(text: str, port_min: int) -> str:
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme == "ipc":
        return f"ipc://{_checked_path(text, rest)}"
    if separator and scheme == "tcp":
        host, _, port = rest.rpartition(":")
        _check_host(text, host)
        if not (port.isascii() and port.isdigit() and port_min <= int(port[:6]) <= 65535):
            raise AddressError(text, f"{port!r} is no port from {port_min} to 65535")
        return f"tcp://{host}:{int(port)}"
    raise AddressError(text, "it begins with neither tcp:// nor ipc://")


def _checked_path(text: str, path: str) -> str:
    # libzmq gives "*" and "@" meanings of their own; an abstract socket has no file permissions
    if not path or path.startswith(("*", "@")) or path.endswith("/") or "\0" in path:
        raise AddressError(text, f"{path!r} is not the path of a socket file")
    absolute = os.path.abspath(path)
    size = len(os.fsencode(absolute))
    if size > IPC_PATH_BYTES_MAX:
        raise AddressError(text, f"the path has {size} bytes, at most {IPC_PATH_BYTES_MAX}")
    return absolute


def _check_host(text: str, host: str) -> None:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise AddressError(text, f"{host!r} is not an IPv6 address") from None
    elif not _HOST.fullmatch(host):
        raise AddressError(text, f"{host!r} is not a host")
