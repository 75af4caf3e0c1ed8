"""Machines made of namespaces, each with a real OpenSSH server, an address and a home of its own.

All of them hang on one bridge in a network namespace that has no way out. What is started while
`Hosts` is entered runs in that network too. A machine may have a real systemd as its first process.
Needs root, openssh-server, iproute2, and systemd for those.
Used by the case `up` and by the tests of provisioning.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from .processes import alive

CLONE_NEWNET = 0x40000000
NETWORK = "10.213.7"  # nobody outside of the namespace sees it
HIDDEN = ("/etc/pip.conf", "/etc/xdg/pip", "/opt/wheels", "/opt/pypi", "/opt/pypi-more")
PYTHONS = "/usr/bin/python3.11"  # python3 and python are links to it
LATE_S = 30.0  # only a broken thing takes this long, however busy the machine is
LOOK_S = 0.01
SSHD = """\
HostKey {directory}/host_key
AuthorizedKeysFile %h/.ssh/authorized_keys
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
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
{more}
ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
ip addr add {address}/24 dev eth0
ip link set eth0 up
cd /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin {first}
"""
SSHD_LINE = "/usr/sbin/sshd -D -e -f {directory}/sshd_config"
# Devices and units of its own: of the system's units only those that no machine can do without, so
# that nothing is started, mounted or generated that belongs to the machine which all this runs on.
SYSTEMD = """\
mount -t tmpfs -o mode=755 dev /dev
mkdir /dev/pts /dev/shm /run/units /run/units/sockets.target.wants
mount -t devpts -o newinstance,ptmxmode=0666 pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    set -- $device
    mknod -m 666 /dev/$1 c $2 $3
done
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
echo {name} > /run/hostname
mount --bind /run/hostname /etc/hostname
for unit in {units}; do cp /lib/systemd/system/$unit /run/units/; done
for unit in {sockets}; do ln -s ../$unit /run/units/sockets.target.wants/; done
mkdir /run/units/multi-user.target.wants
ln -s ../ssh.service /run/units/multi-user.target.wants/
printf '[Service]\nExecStart=%s\nRestart=always\nStandardError=append:%s\n' \
    '{sshd}' {directory}/log > /run/units/ssh.service
mount --bind /run/units /lib/systemd/system
mount -t tmpfs none /lib/systemd/system-generators
mount -t tmpfs -o mode=755 none /etc/systemd/system
"""
SYSTEMD_LINE = "container=other /lib/systemd/systemd --unit=multi-user.target --show-status=no"
SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
UNITS = (
    *("basic", "local-fs", "multi-user", "network", "network-online", "paths", "shutdown"),
    *("slices", "sockets", "swap", "sysinit", "timers"),
)
CONSOLE = "console"  # control group of what is run there from outside
OF_THE_SYSTEM = ("sshd", "systemd-journal")  # processes that each machine has, or may have


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
    group: Path  # its control group, the root of all that it sees

    def first(self) -> psutil.Process:
        """Return the machine's first process, its sshd or systemd."""
        return psutil.Process(self.process.pid).children()[0]

    def processes(self) -> list[psutil.Process]:
        """Return all processes on it but its first, sshd and what belongs to systemd."""
        space = os.readlink(f"/proc/{self.first().pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.NoSuchProcess):
                if os.readlink(f"/proc/{process.pid}/ns/pid") != space:
                    continue
                name = process.name()
                if process.pid != self.first().pid and not name.startswith(OF_THE_SYSTEM):
                    found.append(process)
        return found

    def root(self, path: str) -> Path:
        """Return where a path of the machine is to be found from here."""
        return Path(f"/proc/{self.first().pid}/root{path}")

    def files(self, where: str = "/root") -> list[str]:
        """Return every file and folder in its home, or in another folder of it."""
        home = self.root(where)
        return sorted(str(path.relative_to(home)) for path in home.rglob("*"))

    def call(self, command: str) -> str:
        """Run a command on it, as its administrator would at its console."""
        enter = [*_joining(self.group / CONSOLE), "nsenter", "-t", str(self.first().pid), "-a"]
        enter += ["env", "-i", "HOME=/root", "PATH=/usr/bin:/bin:/usr/sbin:/sbin"]
        return run(*enter, "sh", "-c", command)

    def cut(self) -> None:
        """End all its SSH connections at once, as a broken network would."""
        for process in self.first().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd" and "-D" not in process.cmdline():
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
        _wait(lambda: os.readlink(link) != here, "a network namespace")
        descriptor = os.open(link, os.O_RDONLY)
        _setns(descriptor)
        os.close(descriptor)
        run("ip", "link", "set", "lo", "up")
        # names are resolved only where there is an address besides loopback; it leads nowhere
        run("ip", "link", "add", "alone0", "type", "bridge")
        run("ip", "addr", "add", "10.214.0.1/24", "dev", "alone0")
        run("ip", "link", "set", "alone0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _setns(self._home)
        os.close(self._home)
        self._holder.kill()
        self._holder.wait(LATE_S)


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

    def __exit__(self, *_: object) -> None:
        left: list[int] = []
        for host in self.hosts:
            first = host.first()
            left += [first.pid, *(child.pid for child in first.children(recursive=True))]
            first.kill()  # the kernel kills all others of its pid namespace
            host.process.wait(LATE_S)
        _wait(lambda: not alive(left), "the end of all machines")
        for host in self.hosts:
            _remove_group(host.group)
        self._alone.__exit__()
        shutil.rmtree(self.directory)

    def add(
        self, *, home: str = "", more: str = "", known: bool = True, systemd: bool = False
    ) -> Host:
        """Start a machine.

        Args:
            home: options of the file system of its home, as "size=20m".
            more: commands of its setup, as root, in its own mount namespace.
            known: whether its key is put into the user's known_hosts.
            systemd: whether that is its first process, which runs sshd, and the journal.
        """
        number = len(self.hosts) + 2
        name, address = f"host{number - 1}", f"{NETWORK}.{number}"
        directory = self.directory / name
        directory.mkdir()
        make_key(directory / "host_key")
        shutil.copy(self.ssh / "id_ed25519.pub", directory / "authorized_keys")
        (directory / "sshd_config").write_text(SSHD.format(directory=directory))
        sshd = SSHD_LINE.format(directory=directory)
        if systemd:
            units = [*(f"{name}.target" for name in UNITS), *SOCKETS, "systemd-journald.service"]
            more += "\n" + SYSTEMD.format(
                name=name,
                directory=directory,
                sshd=sshd,
                units=" ".join(units),
                sockets=" ".join(SOCKETS),
            )
        setup = SETUP.format(
            name=name,
            address=address,
            directory=directory,
            hidden=" ".join(HIDDEN),
            home=f",{home}" if home else "",
            more=more,
            first=SYSTEMD_LINE if systemd else f"HOME=/root {sshd}",
        )
        (directory / "setup.sh").write_text(setup)
        host = _begin(name, address, directory)
        end = f"v{number}"
        run("ip", "link", "add", end, "type", "veth", "peer", "name", f"p{number}")
        run("ip", "link", "set", end, "master", "br0", "up")
        pid = host.first().pid
        run("ip", "link", "set", f"p{number}", "netns", str(pid), "name", "eth0")
        self.hosts.append(host)
        log_path = directory / "log"
        _wait(lambda: "Server listening" in log_path.read_text(), f"sshd of {name}")
        if known:
            with (self.ssh / "known_hosts").open("a") as file:
                file.write(host.known_line())
        return host


def _begin(name: str, address: str, directory: Path) -> Host:
    """Start a machine's first process."""
    group = _make_group()
    line = [*_joining(group), "unshare", "--net", "--mount", "--uts", "--ipc", "--cgroup", "--pid"]
    line += ["--fork", "--kill-child", "--mount-proc", "sh", str(directory / "setup.sh")]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    _wait(lambda: bool(psutil.Process(process.pid).children()), "its first process")
    return Host(name, address, directory, process, group)


def _joining(group: Path) -> list[str]:
    """Return a command that joins a control group and becomes the command that follows it."""
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def _make_group() -> Path:
    """Make a control group of version 2, wherever that is mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next(Path(words[1]) for words in mounts if words[2] == "cgroup2")
    group = root / f"hosts-{os.urandom(4).hex()}"
    (group / CONSOLE).mkdir(parents=True)
    return group


def _remove_group(group: Path) -> None:
    """Remove a control group, and all in it: nothing runs there any more."""
    for directory, _, _ in os.walk(group, topdown=False):
        _wait(partial(_removed, directory), f"the end of {directory}")


def _removed(directory: str) -> bool:
    with suppress(OSError):  # a process of it is still dying
        os.rmdir(directory)
    return not os.path.exists(directory)


def _wait(true: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + LATE_S
    while not true():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {LATE_S} s: {what}")
        time.sleep(LOOK_S)


def _setns(descriptor: int) -> None:
    """Move this thread, and all that it starts from now on, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
