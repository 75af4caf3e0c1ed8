"""What the address of a scheduler looks like: `burla://HOST:PORT?key=KEY` or `ipc://PATH`. Pure.

KEY is the scheduler's public key, 64 hexadecimal digits: who connects knows whom to expect.
Commands, the environment and the settings file all bring addresses as text; nothing else in the
project takes one apart.
"""

import ipaddress
import os.path
import re

from msgspec import Struct

# sun_path of a Unix socket has 108 bytes, the last one is a NUL; the scheduler's second socket
# lies beside the first, and is called the same with ".pub" at the end.
IPC_PATH_BYTES_MAX = 107 - len(".pub")
FORMS = "burla://HOST:PORT?key=KEY or ipc://PATH"
BIND_FORMS = "tcp://HOST:PORT or ipc://PATH"
ANY_HOST = ("0.0.0.0", "[::]", "*")
KEY_DIGITS = 64
KEY_TEXT = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
QUOTES = ("'", '"', "`")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")


class AddressError(ValueError):
    """A text that is not the address of a scheduler; repeats it and says what is wrong."""

    def __init__(self, text: str, why: str, forms: str = FORMS) -> None:
        """Say of `text` what is wrong with it."""
        super().__init__(f"{text!r} is not the address of a scheduler, {forms}: {why}")
        self.why = why


class Endpoint(Struct, frozen=True):
    """An address, taken apart."""

    endpoint: str  # tcp://HOST:PORT or ipc://PATH, as libzmq takes it
    key: bytes | None  # the scheduler's public key; None for ipc: the file system guards it


def connect_address(text: str) -> str:
    """Return `text` as an address to connect to; an ipc path becomes absolute.

    Raises:
        AddressError: `text` is nothing that one could connect to.
    """
    where = take_apart(text)
    return where.endpoint if where.key is None else full_address(where.endpoint, where.key)


def full_address(endpoint: str, key: bytes) -> str:
    """Return what others need to know to reach a scheduler that listens at a tcp endpoint."""
    return f"burla://{endpoint.removeprefix('tcp://')}?key={key.hex()}"


def take_apart(text: str) -> Endpoint:
    """Return what the address `text` says.

    Raises:
        AddressError: `text` is nothing that one could connect to.
    """
    if text.strip()[:1] in QUOTES or text.strip()[-1:] in QUOTES:
        raise AddressError(text, "quotes are no part of an address: take them out")
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme == "ipc":
        return Endpoint(f"ipc://{_checked_path(text, rest, FORMS)}", None)
    if separator and scheme == "tcp":
        why = "tcp:// goes without keys; use the whole address that burla-scheduler prints, burla://..."
        raise AddressError(text, why)
    if not separator or scheme != "burla":
        raise AddressError(text, "it begins with neither burla:// nor ipc://")
    place, question, query = rest.partition("?")
    name, _, key = query.partition("=")
    if not question or name != "key" or not KEY_TEXT.fullmatch(key.lower()):
        why = "it does not end with ?key= and the 64 digits of a key"
        raise AddressError(text, f"{why}{_wrong_digits(key)}")
    return Endpoint(_tcp(text, place, 1, FORMS), bytes.fromhex(key))


def _wrong_digits(key: str) -> str:
    """Return what is wrong with the digits of a key; empty: there are none."""
    if not key:
        return ""
    if len(key) != KEY_DIGITS:
        return f", but with {len(key)}"
    wrong = next((sign for sign in key if sign not in "0123456789abcdefABCDEF"), "")
    return f", but with {wrong!r} among them" if wrong else ""


def publisher_endpoint(told: str, scheduler: str) -> str:
    """Return where to subscribe: what the scheduler told, on the host where we found it.

    A scheduler that listens on every address of its machine does not know which one we use.
    """
    host, _, port = told.removeprefix("tcp://").rpartition(":")
    if told.startswith("tcp://") and scheduler.startswith("tcp://") and host in ANY_HOST:
        return f"{scheduler.rpartition(':')[0]}:{port}"
    return told


def bind_address(text: str) -> str:
    """Return `text` as an address to listen on: port 0 picks one, "localhost" becomes a number.

    Raises:
        AddressError: `text` is nothing that one could listen on.
    """
    scheme, separator, rest = text.strip().partition("://")
    if separator and scheme == "ipc":
        return f"ipc://{_checked_path(text, rest, BIND_FORMS)}"
    if not separator or scheme != "tcp":
        raise AddressError(text, "it begins with neither tcp:// nor ipc://", BIND_FORMS)
    address = _tcp(text, rest, 0, BIND_FORMS)
    if address.startswith("tcp://localhost:"):  # libzmq resolves no names for a bind
        return address.replace("localhost", "127.0.0.1", 1)
    return address


def ipc_path(address: str) -> str | None:
    """Return the path of an ipc address; None for others."""
    return address.removeprefix("ipc://") if address.startswith("ipc://") else None


def _tcp(text: str, place: str, port_min: int, forms: str) -> str:
    host, colon, port = place.rpartition(":")
    if not colon:
        raise AddressError(text, f"there is no :PORT behind {place!r}", forms)
    _check_host(text, host, forms)
    if not (port.isascii() and port.isdigit() and port_min <= int(port[:6]) <= 65535):
        raise AddressError(text, f"{port!r} is not a port from {port_min} to 65535", forms)
    return f"tcp://{host}:{int(port)}"


def _checked_path(text: str, path: str, forms: str) -> str:
    # libzmq gives "*" and "@" meanings of their own; an abstract socket has no file permissions
    if not path or path.startswith(("*", "@")) or path.endswith("/") or "\0" in path:
        raise AddressError(text, f"{path!r} is not the path of a socket file", forms)
    absolute = os.path.abspath(path)
    size = len(os.fsencode(absolute))
    if size > IPC_PATH_BYTES_MAX:
        raise AddressError(text, f"the path has {size} bytes, at most {IPC_PATH_BYTES_MAX}", forms)
    return absolute


def _check_host(text: str, host: str, forms: str) -> None:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise AddressError(text, f"{host!r} is not an IPv6 address", forms) from None
    elif not _HOST.fullmatch(host):
        raise AddressError(text, f"{host!r} is not a host", forms)
