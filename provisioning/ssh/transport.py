"""Transport over SSH, by paramiko. Reads ~/.ssh/config and known_hosts as OpenSSH does.

A host whose key is not known, or has changed, is refused with both fingerprints and the command
that accepts exactly the key that was offered. Nothing here ever writes to known_hosts.
"""

import getpass
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.pkey import PKey

from burla.provisioning.core.addresses import split_target
from burla.provisioning.core.machines import (
    OUTPUT_CHARS_MAX,
    ConnectionLost,
    Finished,
    ProvisioningError,
    Unreachable,
)

from .includes import config_lines
from .known_hosts import KnownHosts

CONNECT_S = 15.0  # TCP, key exchange and authentication, each
KEEPALIVE_S = 10  # something is sent this often, and
SILENCE_S = 30.0  # if the other side's kernel has not acknowledged it for this long, it is gone
CHUNK_BYTES = 64 << 10
POLL_S = 0.005  # while the other side is slow to take a big input
HANDSHAKES_MAX = 6  # at once at one address; sshd drops some as soon as 10 are not yet let in
JUMPS_MAX = 8  # hosts on the way; a config may run in a circle
PASSPHRASES_MAX = 3  # tries for a key, as ssh gives
IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")  # tried if the config names none, as ssh does
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # we say it ourselves, in words
AskPassphrase = Callable[[str], str | None]  # path of a key -> its passphrase; None: not known


@dataclass(frozen=True)
class Host:
    """How one host is connected to: what the user asked for, and what ~/.ssh/config adds."""

    name: str  # as the user said it
    hostname: str
    port: int
    user: str
    identities: tuple[str, ...]
    only_identities: bool  # no other keys of the agent
    known_hosts: tuple[str, ...]  # files
    known_as: str  # the name in them
    jumps: tuple[str, ...]  # hosts on the way, as in ProxyJump
    proxy_command: str


class SshSettings:
    """What a user's SSH directory says."""

    def __init__(
        self,
        directory: Path | None = None,
        ask: AskPassphrase = lambda path: None,
        connect_s: float | None = None,
    ) -> None:
        """Read `config` in `directory`; None: ~/.ssh.

        Args:
            directory: where config, known_hosts and keys are.
            ask: called for the passphrase of a key, once for each key if it is right.
            connect_s: for TCP, key exchange and authentication, each; None: `CONNECT_S`.

        Raises:
            ProvisioningError: the config cannot be read.
        """
        self.directory = directory or Path.home() / ".ssh"
        self._ask = ask
        self.connect_s = CONNECT_S if connect_s is None else connect_s
        self._keys: dict[str, PKey | None] = {}  # loaded ones, so that the user is asked once
        self._shut: set[str] = set()  # keys whose passphrase was said wrongly, as often as may be
        self._lock = threading.Lock()  # hosts are connected to in parallel
        self._turns_lock = threading.Lock()  # another one: no question is asked while it is held
        self.locked: list[str] = []  # keys whose passphrase was not given
        self._turns: dict[tuple[str, int], threading.Semaphore] = {}
        path = self.directory / "config"
        try:
            text = "\n".join(config_lines(path, self.directory)) if path.exists() else ""
            self._config = paramiko.SSHConfig.from_text(text)
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise ProvisioningError(f"cannot read {path}: {error}") from error

    def turn(self, host: Host) -> threading.Semaphore:
        """Return what is to be held while a connection to a host is made and let in."""
        with self._turns_lock:
            made = threading.Semaphore(HANDSHAKES_MAX)
            return self._turns.setdefault((host.hostname, host.port), made)

    def host(self, target: str) -> Host:
        """Return how to connect to `[USER@]HOST[:PORT]`; what it says goes before the config.

        Raises:
            ProvisioningError: it is something else.
        """
        user, name, port = split_target(target)
        said = self._config.lookup(name)
        hostname = str(said.get("hostname", name))
        number = port or int(said.get("port", 22))
        alias = said.get("hostkeyalias") or hostname
        files = str(said.get("userknownhostsfile", self.directory / "known_hosts"))
        jump = str(said.get("proxyjump", "none"))
        command = str(said.get("proxycommand", "none"))
        return Host(
            name=target,
            hostname=hostname,
            port=number,
            user=user or str(said.get("user", getpass.getuser())),
            identities=tuple(self._identities(said)),
            only_identities=str(said.get("identitiesonly", "no")).lower() == "yes",
            known_hosts=(*(str(Path(f).expanduser()) for f in files.split()), SYSTEM_KNOWN_HOSTS),
            known_as=alias if number == 22 else f"[{alias}]:{number}",
            jumps=() if jump.lower() == "none" else tuple(j.strip() for j in jump.split(",")),
            proxy_command="" if command.lower() == "none" else command,
        )

    def why_unknown(self, target: str) -> str:
        """Return why a name leads to no address; empty: it does, or others on the way know it."""
        host = self.host(target)
        if host.jumps or host.proxy_command:
            return ""
        try:
            socket.getaddrinfo(host.hostname, host.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            return str(getattr(error, "strerror", None) or error)
        return ""

    def _identities(self, said: paramiko.SSHConfigDict) -> Iterator[str]:
        named: Any = said.get("identityfile")  # the one key that has a list
        if named:
            yield from (str(Path(path).expanduser()) for path in named)
        else:
            yield from (str(self.directory / name) for name in IDENTITIES)

    def key(self, path: str) -> PKey | None:
        """Return the private key in a file; None: there is none, or its passphrase is not known.

        Raises:
            Unreachable: it is broken.
        """
        with self._lock:
            if path in self._shut:
                raise Unreachable(f"the passphrase of {path} was wrong too often")
            if path not in self._keys:
                self._keys[path] = self._load(path) if Path(path).exists() else None
            return self._keys[path]

    def _load(self, path: str) -> PKey | None:
        try:
            return _read_key(path, None)
        except (TypeError, paramiko.PasswordRequiredException):
            pass  # it has a passphrase
        except (ValueError, OSError, paramiko.SSHException) as error:
            raise Unreachable(f"cannot read the key {path}: {error}") from error
        for _ in range(PASSPHRASES_MAX):
            passphrase = self._ask(path)
            if passphrase is None:
                self.locked.append(path)
                return None
            with suppress(ValueError, TypeError, paramiko.SSHException):
                return _read_key(path, passphrase.encode())
        self._shut.add(path)
        raise Unreachable(f"wrong passphrase for {path}")


def _read_key(path: str, passphrase: bytes | None) -> PKey:
    return PKey.from_path(path, passphrase)  # type: ignore[arg-type]  # takes bytes


class SshTransport:
    """One authenticated connection; see `machines.Transport`."""

    def __init__(self, transports: list[paramiko.Transport], host: Host) -> None:
        """Use the last of `transports`; those before it are the hosts on the way."""
        self._transports = transports
        self._host = host

    def run(self, command: str, stdin: bytes = b"", *, timeout_s: float) -> Finished:
        """Run a command; see `machines.Transport`."""
        try:
            channel = self._transports[-1].open_session(timeout=CONNECT_S)
            with channel:
                channel.settimeout(timeout_s)
                channel.set_combine_stderr(True)
                channel.exec_command(command)
                return _converse(channel, stdin, timeout_s)
        except TimeoutError as error:
            raise ConnectionLost(f"the command did not end within {timeout_s:.0f} s") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(
                f"the connection to {self._host.name} was lost ({error or type(error).__name__});"
                " run the same command again, it continues from there"
            ) from error

    def close(self) -> None:
        """Close the connection, and those to the hosts on the way."""
        for transport in reversed(self._transports):
            transport.close()


def _converse(channel: paramiko.Channel, stdin: bytes, timeout_s: float) -> Finished:
    """Send `stdin` and take what the command writes, whichever can be done."""
    until_s = time.monotonic() + timeout_s
    output, left = bytearray(), memoryview(stdin)
    with suppress(OSError):  # it ended and reads no further; why, is said by its output and status
        while left and not channel.exit_status_ready():
            if channel.send_ready():
                left = left[channel.send(bytes(left[:CHUNK_BYTES])) :]
            elif channel.recv_ready():
                output += channel.recv(CHUNK_BYTES)
            elif time.monotonic() > until_s:
                raise ConnectionLost(f"the command did not read its input within {timeout_s:.0f} s")
            else:
                time.sleep(POLL_S)
        channel.shutdown_write()
    while data := channel.recv(CHUNK_BYTES):
        output += data
        del output[:-OUTPUT_CHARS_MAX]
        channel.settimeout(max(0.1, until_s - time.monotonic()))
    status = channel.recv_exit_status()
    if status < 0:
        raise EOFError("the command ended without an exit status")
    return Finished(status, output.decode(errors="replace"))


def connect(settings: SshSettings, target: str) -> SshTransport:
    """Connect to `[USER@]HOST[:PORT]`, over the hosts that its config names.

    Raises:
        HostKeyRefused: a host on the way, or the last one, is not known or not the one we know.
        Unreachable: it does not answer, or accepts none of our keys.
    """
    transports: list[paramiko.Transport] = []
    try:
        for host in _way(settings, target, JUMPS_MAX):
            with settings.turn(host):
                transports.append(_connect_one(settings, host, transports[-1:]))
    except BaseException:
        for transport in reversed(transports):
            transport.close()
        raise
    return SshTransport(transports, settings.host(target))


def _way(settings: SshSettings, target: str, most: int) -> Iterator[Host]:
    """Yield the hosts to connect to, one through the other, `target` last."""
    if most == 0:
        raise Unreachable(f"{target}: its ProxyJump has more than {JUMPS_MAX} hosts")
    host = settings.host(target)
    for number, jump in enumerate(host.jumps):
        if number == 0:  # only the first one's own jumps count, as in ssh
            yield from _way(settings, jump, most - 1)
        else:
            yield settings.host(jump)
    yield host


def _connect_one(
    settings: SshSettings, host: Host, through: list[paramiko.Transport]
) -> paramiko.Transport:
    where = f"{host.hostname}:{host.port}"
    try:
        transport = paramiko.Transport(_open_socket(settings, host, through))
    except (OSError, paramiko.SSHException) as error:
        said = getattr(error, "strerror", None) or error
        raise Unreachable(f"cannot connect to {host.name} at {where}: {said}") from error
    try:
        known = KnownHosts(host.known_as, host.known_hosts)
        _prefer(transport, known.keys)
        transport.banner_timeout = transport.auth_timeout = settings.connect_s
        transport.start_client(timeout=settings.connect_s)
        known.check(host.name, transport.get_remote_server_key())
        _authenticate(settings, host, transport)
        transport.set_keepalive(KEEPALIVE_S)
    except (OSError, EOFError, paramiko.SSHException) as error:
        transport.close()
        why = error or "it closed the connection"
        raise Unreachable(f"cannot log in to {host.name} at {where}: {why}") from error
    except BaseException:
        transport.close()
        raise
    return transport


def _open_socket(
    settings: SshSettings, host: Host, through: list[paramiko.Transport]
) -> socket.socket | paramiko.Channel | paramiko.ProxyCommand:
    if through:
        address = (host.hostname, host.port)
        return through[-1].open_channel(
            "direct-tcpip", address, ("", 0), timeout=settings.connect_s
        )
    if host.proxy_command:
        return paramiko.ProxyCommand(host.proxy_command)
    made = socket.create_connection((host.hostname, host.port), settings.connect_s)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_S * 1000))
    return made


def _prefer(transport: paramiko.Transport, known: list[PKey]) -> None:
    """Ask for the kinds of key that are known of the host: it may have others as well."""
    options = transport.get_security_options()
    wanted = []
    for key in known:
        name = key.get_name()
        wanted += ["rsa-sha2-512", "rsa-sha2-256"] if name == "ssh-rsa" else [name]
    first = [kind for kind in dict.fromkeys(wanted) if kind in options.key_types]
    options.key_types = tuple([*first, *(k for k in options.key_types if k not in first)])


# --- who we are ---


def _authenticate(settings: SshSettings, host: Host, transport: paramiko.Transport) -> None:
    tried = 0
    with closing(paramiko.Agent()) as agent:  # one each: its connection is for one at a time
        for key in _our_keys(settings, host, agent):
            tried += 1
            try:
                if not transport.auth_publickey(host.user, key):
                    return
            except paramiko.AuthenticationException:
                continue
            except (paramiko.SSHException, EOFError):
                break  # too many tries: it hung up
    said = f"tried {tried} of your keys" if tried else "you have no key to offer"
    locked = [path for path in host.identities if path in settings.locked]
    if locked:
        said += f"; not tried, as the passphrase is not known: {', '.join(locked)} (run ssh-add)"
    raise Unreachable(
        f"{host.name} does not let {host.user} in: {said}. Try `ssh {shlex.quote(host.name)}`;"
        " name the right key by IdentityFile in ~/.ssh/config or add it to the agent"
    )


def _our_keys(settings: SshSettings, host: Host, agent: paramiko.Agent) -> Iterator[PKey]:
    """Yield keys to try: the agent's, those named for this host first, then the files'."""
    named = {_public(path) for path in host.identities} - {None}
    agents = sorted(agent.get_keys(), key=lambda key: key.get_base64() not in named)
    seen = set()
    for key in agents:
        if not host.only_identities or key.get_base64() in named:
            seen.add(key.get_base64())
            yield key
    for path in host.identities:
        if _public(path) in seen:
            continue
        loaded = settings.key(path)
        if loaded is not None and loaded.get_base64() not in seen:
            yield loaded


def _public(path: str) -> str | None:
    """Return the public half that lies beside a key."""
    try:
        return Path(f"{path}.pub").read_text().split()[1]
    except (OSError, IndexError):
        return None
