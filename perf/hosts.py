"""Machines made of namespaces, each with a real OpenSSH server, an address and a home of its own.

All of them hang on one bridge in a network namespace that has no way out. What a test starts while
`Hosts` is entered runs in that network too. Needs root, openssh-server and iproute2.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil
from waiting import wait_gone, wait_until

CLONE_NEWNET = 0x40000000
NETWORK = "10.213.7"  # nobody outside of the namespace sees it
HIDDEN = ("/etc/pip.conf", "/etc/xdg/pip", "/opt/wheels", "/opt/pypi", "/opt/pypi-more")
PYTHONS = "/usr/bin/python3.11"  # python3 and python are links to it
SSHD = """\
HostKey {directory}/host_key
AuthorizedKeysFile /root/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
"""
SETUP = """\
set -eu
mount --make-rprivate /
hostname {name}
mount -t tmpfs -o mode=700{home} home /root
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd /root/.ssh
cp {directory}/authorized_keys /root/.ssh/
for place in {hidden}; do [ ! -d $place ] || mount -t tmpfs none $place; done
for place in {hidden}; do [ ! -f $place ] || mount --bind /dev/null $place; done
{more}
ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
ip addr add {address}/24 dev eth0
ip link set eth0 up
cd /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root \\
    /usr/sbin/sshd -D -e -f {directory}/sshd_config
"""


def run(*line: str | Path) -> str:
    """Return what a command of the system said; it must not fail."""
    done = subprocess.run([str(x) for x in line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


@dataclass
class Host:
    """One machine."""

    name: str
    address: str
    directory: Path  # its host key and settings, on this side
    process: subprocess.Popen[bytes]  # unshare; its child is the machine's first process

    def first(self) -> psutil.Process:
        """Return the machine's first process, its sshd."""
        return psutil.Process(self.process.pid).children()[0]

    def processes(self) -> list[psutil.Process]:
        """Return all processes on it but its listening sshd, and what is forked from that now."""
        space = os.readlink(f"/proc/{self.first().pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.NoSuchProcess):
                if os.readlink(f"/proc/{process.pid}/ns/pid") != space:
                    continue
                if process.pid != self.first().pid and "sshd" not in process.name():
                    found.append(process)
        return found

    def root(self, path: str) -> Path:
        """Return where a path of the machine is to be found from here."""
        return Path(f"/proc/{self.first().pid}/root{path}")

    def files(self) -> list[str]:
        """Return every file and folder in its home."""
        home = self.root("/root")
        return sorted(str(path.relative_to(home)) for path in home.rglob("*"))

    def call(self, command: str) -> str:
        """Run a command on it, as its administrator would at its console."""
        enter = ("nsenter", "-t", str(self.first().pid), "-a", "env", "-i", "HOME=/root")
        return run(*enter, "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "sh", "-c", command)

    def cut(self) -> None:
        """End all its SSH connections at once, as a broken network would."""
        for process in self.first().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd":
                    process.kill()

    def new_key(self) -> None:
        """Give it another host key; it uses it for the next connection."""
        (self.directory / "host_key").unlink()
        make_key(self.directory / "host_key")
        self.first().send_signal(signal.SIGHUP)

    def known_line(self, kind: str = "ssh-ed25519") -> str:
        """Return its line for known_hosts."""
        words = (self.directory / "host_key.pub").read_text().split()
        assert words[0] == kind
        return f"{self.address} {words[0]} {words[1]}\n"


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> None:
    """Make a key pair."""
    run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path, "-C", "test")


class Alone:
    """A network namespace with nothing but loopback: what is started inside of `with` is in it."""

    def __enter__(self) -> "Alone":
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        here = os.readlink("/proc/self/ns/net")
        link = f"/proc/{self._holder.pid}/ns/net"
        wait_until(lambda: os.readlink(link) != here, "a network namespace")
        descriptor = os.open(link, os.O_RDONLY)
        _setns(descriptor)
        os.close(descriptor)
        run("ip", "link", "set", "lo", "up")
        # names are resolved only where there is an address besides loopback; it leads nowhere
        run("ip", "link", "add", "alone0", "type", "bridge")
        run("ip", "addr", "add", "10.214.0.1/24", "dev", "alone0")
        run("ip", "link", "set", "alone0", "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _setns(self._home)
        os.close(self._home)
        self._holder.kill()
        self._holder.wait(20)


@dataclass
class Hosts:
    """A network with machines; what is started inside of `with` is in it."""

    directory: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))
    )
    hosts: list[Host] = field(default_factory=list)

    def __enter__(self) -> "Hosts":
        self._alone = Alone()
        self._alone.__enter__()
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        self.ssh = self.directory / "ssh"  # the user's ~/.ssh
        self.ssh.mkdir(parents=True, mode=0o700)
        make_key(self.ssh / "id_ed25519")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        left = []
        for host in self.hosts:
            left += [host.first(), *host.first().children(recursive=True)]
            host.first().kill()  # the kernel kills all others of its pid namespace
            host.process.wait(20)
        wait_gone(left)
        self._alone.__exit__(kind, error, trace)
        shutil.rmtree(self.directory)

    def add(self, *, home: str = "", more: str = "", known: bool = True) -> Host:
        """Start a machine.

        Args:
            home: options of the file system of its home, as "size=20m".
            more: commands of its setup, as root, in its own mount namespace.
            known: whether its key is put into the user's known_hosts.
        """
        number = len(self.hosts) + 2
        name, address = f"host{number - 1}", f"{NETWORK}.{number}"
        directory = self.directory / name
        directory.mkdir()
        make_key(directory / "host_key")
        shutil.copy(self.ssh / "id_ed25519.pub", directory / "authorized_keys")
        (directory / "sshd_config").write_text(SSHD.format(directory=directory))
        setup = SETUP.format(
            name=name,
            address=address,
            directory=directory,
            hidden=" ".join(HIDDEN),
            home=f",{home}" if home else "",
            more=more,
        )
        (directory / "setup.sh").write_text(setup)
        line = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        line += ["--mount-proc", "sh", str(directory / "setup.sh")]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        host = Host(name, address, directory, process)
        wait_until(lambda: bool(psutil.Process(process.pid).children()), "its first process")
        end = f"v{number}"
        run("ip", "link", "add", end, "type", "veth", "peer", "name", f"p{number}")
        run("ip", "link", "set", end, "master", "br0", "up")
        pid = host.first().pid
        run("ip", "link", "set", f"p{number}", "netns", str(pid), "name", "eth0")
        self.hosts.append(host)
        log_path = directory / "log"
        wait_until(lambda: "Server listening" in log_path.read_text(), f"sshd of {name}")
        if known:
            with (self.ssh / "known_hosts").open("a") as file:
                file.write(host.known_line())
        return host


def _setns(descriptor: int) -> None:
    """Move this thread, and all that it starts from now on, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
