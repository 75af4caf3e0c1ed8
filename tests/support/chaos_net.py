"""A network of namespaces whose lines the kernel disturbs: needs root, iproute2 and nftables."""

import subprocess
from collections.abc import Sequence

from hosts import Alone, run

NETWORK = "10.215.3"  # nobody outside of the namespace sees it
HUB = f"{NETWORK}.1"  # of the scheduler and of the users
BRIDGE = "hub0"
TABLE = """\
table inet chaos {
    chain here { type filter hook input priority 0; }
    chain away { type filter hook output priority 0; }
}"""
# A machine waits until its line is there, and becomes the program.
MACHINE = """\
ip link set lo up
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
ip addr add "$0/24" dev eth0 && ip link set eth0 up && exec "$@"
"""


class Net:
    """A hub, where the thread that entered it is, and machines, each with its line to it."""

    def __init__(self) -> None:
        """Be nothing yet."""
        self.ends: list[str] = []  # of the lines, at the hub
        self._alone = Alone()

    def __enter__(self) -> "Net":
        self._alone.__enter__()
        try:
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "addr", "add", f"{HUB}/24", "dev", BRIDGE)
            run("ip", "link", "set", BRIDGE, "up")
            run("nft", TABLE)
        except BaseException:
            self._alone.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._alone.__exit__()

    def prefix(self) -> Sequence[str]:
        """Return a command that becomes what follows it, on the next machine."""
        return ("unshare", "--net", "sh", "-c", MACHINE, self._address(len(self.ends)))

    def connect(self, machine: subprocess.Popen[str]) -> None:
        """Give that machine its line."""
        end, peer = f"v{len(self.ends)}", f"p{len(self.ends)}"
        run("ip", "link", "add", end, "type", "veth", "peer", "name", peer)
        run("ip", "link", "set", peer, "netns", str(machine.pid), "name", "eth0")
        run("ip", "link", "set", end, "master", BRIDGE, "up")
        self.ends.append(end)

    def pull(self, line: int) -> None:
        """Take the plug out."""
        self._tell(line, "ip", "link", "set", self.ends[line], "down")

    def plug(self, line: int) -> None:
        """Put it back."""
        self._tell(line, "ip", "link", "set", self.ends[line], "up")

    def drop(self, line: int, *, to_hub: bool) -> None:
        """Lose all packets in one direction."""
        chain, side = ("here", "saddr") if to_hub else ("away", "daddr")
        run("nft", "add", "rule", "inet", "chaos", chain, "ip", side, self._address(line), "drop")

    def drop_nothing(self) -> None:
        """Lose no packets any more."""
        run("nft", "flush", "table", "inet", "chaos")

    def narrow(self, line: int, kbit_per_s: int) -> None:
        """Let so much pass, from the hub to a machine."""
        shape = ("tbf", "rate", f"{kbit_per_s}kbit", "burst", "16kb", "latency", "300ms")
        self._tell(line, "tc", "qdisc", "add", "dev", self.ends[line], "root", *shape)

    def widen(self, line: int) -> None:
        """Let everything pass."""
        self._tell(line, "tc", "qdisc", "del", "dev", self.ends[line], "root")

    def _address(self, line: int) -> str:
        return f"{NETWORK}.{line + 2}"

    def _tell(self, line: int, *command: str) -> None:
        """Run a command about a line, which is gone if its machine is."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        is_there = subprocess.run(
            ["ip", "link", "show", self.ends[line]], capture_output=True, check=False
        )
        assert done.returncode == 0 or is_there.returncode != 0, done.stderr
