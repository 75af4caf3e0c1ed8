"""What `burla up` says when something is wrong, and that it goes on from there."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import NETWORK, PYTHONS, Host, Hosts, make_key
from labs import at_home, lab
from marked import marked
from sshagent import agent
from users import User
from wanted import wheelhouse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FRAMES_S = 0.5  # 4 of them


@pytest.fixture
def hosts(user: User) -> Iterator[Hosts]:
    wheelhouse()
    with Hosts() as made:
        yield made


def said_of(host: Host | str, stderr: str) -> str:
    """Return what the sum says of one machine."""
    lines = stderr[stderr.index(" failed\n") :].splitlines()
    name = host if isinstance(host, str) else host.address
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"  {name}: "))
    found = [lines[begin]]
    for line in lines[begin + 1 :]:
        if line.startswith((f"  {NETWORK}.", "Fix ", "These ")):
            break
        found.append(line)
    return "\n".join(found)


def test_each_machine_that_can_not_be_a_node_is_told_and_hinders_no_other(
    user: User, hosts: Hosts
) -> None:
    good, shut, changed = hosts.add(), hosts.add(), hosts.add()
    unknown = hosts.add(known=False)
    bare, full = hosts.add(more=f"mount --bind /dev/null {PYTHONS}"), hosts.add(home="size=30m")
    before = [host.files() for host in hosts.hosts]
    shut.root("/root/.ssh/authorized_keys").rename(shut.root("/root/.ssh/kept"))
    at_home(user, hosts)
    old = changed.known_line().split()[2]
    known = user.home / ".ssh/known_hosts"
    known.write_text(known.read_text().replace(old, good.known_line().split()[2]))
    targets = [f"root@{host.address}" for host in hosts.hosts]
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0", *targets, f"root@{NETWORK}.99")
    house = user.home / "house"
    shutil.copytree(wheelhouse_folder(file), house)
    file.write_text(file.read_text().replace(wheelhouse_folder(file), str(house)))
    with marked() as mark:
        stderr = user.burla("up", str(file), code=1).stderr
        assert "\n1 ready, 6 failed\n" in stderr
        assert "does not let root in: tried 1 of your keys" in said_of(shut, stderr)
        assert "HAS CHANGED" in said_of(changed, stderr)
        assert said_of(changed, stderr).count("SHA256:") == 2
        assert "is not known" in said_of(unknown, stderr)
        assert "found no Python 3 at all" in said_of(bare, stderr)
        assert "MB are free" in said_of(full, stderr)
        assert "No route to host" in said_of(f"{NETWORK}.99", stderr)

        for host in (changed, unknown):  # word for word what it says
            accept = said_of(host, stderr).splitlines()[-1]
            subprocess.run(["sh", "-c", accept], check=True, capture_output=True)
        shut.root("/root/.ssh/kept").rename(shut.root("/root/.ssh/authorized_keys"))
        stderr = user.burla("up", str(file), code=1).stderr
        assert "\n4 ready, 3 failed\n" in stderr
        assert "export BURLA_CLUSTER='burla://" in stderr

        shutil.rmtree(house)  # what is shipped is nobody's business any more
        assert (
            f"{NETWORK}.99: unknown" not in user.burla("status", "--cluster", "lab", code=1).stderr
        )
        stderr = user.burla("down", "--cluster", "lab").stderr
        assert "\n7 removed, 0 failed\n" in stderr  # of .99 nothing was ever reached
        assert mark.processes() == []
    assert [host.files() for host in hosts.hosts] == before
    assert [path for path in user.files() if "state/burla/" in path] == []


def wheelhouse_folder(file: Path) -> str:
    return file.read_text().split('wheelhouse = "')[1].split('"')[0]


def test_a_machine_that_is_gone_for_good_does_not_keep_a_cluster_up(
    user: User, hosts: Hosts
) -> None:
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0", f"root@{NETWORK}.99")
    with marked() as mark:
        user.burla("up", str(file), code=1)
        known = user.home / ".local/state/burla/lab/cluster.json"
        said = json.loads(known.read_text())
        said["untouched"] = []  # as if it had been a node once
        known.write_text(json.dumps(said))
        assert "with --forget" in user.burla("down", "--cluster", "lab", code=1).stderr
        stderr = user.burla("down", "--forget", "--cluster", "lab").stderr
        assert "These machines are forgotten" in stderr
        assert mark.processes() == []
    assert [path for path in user.files() if "state/burla/" in path] == []


def test_a_mistyped_host_is_refused_or_can_be_removed(user: User, hosts: Hosts) -> None:
    good = hosts.add()
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0")
    with marked():
        user.burla("up", str(file))
        stderr = user.burla("nodes", "add", "root@no-such-host.invalid", code=78).stderr
        assert "there is no host of this name" in stderr
        assert "Nothing was changed" in stderr
        assert [node["name"] for node in user.said("status")["nodes"]] == [good.address]
        user.burla("nodes", "add", f"root@{NETWORK}.99", code=1)
        seen = user.said("status", code=1)
        assert [node["phase"] for node in seen["nodes"]] == ["ready", "unknown"]
        assert (seen["ready"], seen["failed"], seen["state"]) == (1, 1, "ready")
        user.burla("nodes", "remove", f"{NETWORK}.99")
        assert [node["name"] for node in user.said("status")["nodes"]] == [good.address]
        user.burla("down")


def test_a_host_is_reached_as_the_ssh_config_says(user: User, hosts: Hosts) -> None:
    """A name of the config, behind another host, with a key that only an agent can use."""
    door, room = hosts.add(), hosts.add()
    at_home(user, hosts)
    key = user.home / ".ssh/special"
    make_key(key)
    room.root("/root/.ssh/authorized_keys").write_text(key.with_suffix(".pub").read_text())
    (user.home / ".ssh/config").write_text(
        f"Host door\n HostName {door.address}\n"
        f"Host room\n HostName {room.address}\n ProxyJump door\n IdentityFile {key}\n"
        "Host *\n User root\n"
    )
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0", "room")
    with marked(), agent(key):
        key.unlink()
        user.environment["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
        said = user.said("up", str(file))
        assert [(node["name"], node["why"]) for node in said["nodes"]] == [("room", "")]
        assert "room" in user.use(said["scheduler"])
        assert user.said("down", "--cluster", "lab")["failed"] == 0


def test_a_passphrase_is_asked_for_once_and_can_be_read(user: User, hosts: Hosts) -> None:
    two = [hosts.add(), hosts.add()]
    at_home(user, hosts)
    key = user.home / ".ssh/id_ed25519"
    key.unlink()
    make_key(key, "open sesame")
    for host in two:
        host.root("/root/.ssh/authorized_keys").write_text(key.with_suffix(".pub").read_text())
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0")
    with marked():
        assert "as the passphrase is not known" in user.burla("up", str(file), code=1).stderr
        seen, status = at_terminal(user, ["up", str(file)], ["no such\n", "open sesame\n"])
        assert status == 0
        assert seen.count("passphrase of ") == 2  # once more, for it was wrong at first
        assert "2 ready, 0 failed" in seen
        seen, status = at_terminal(user, ["down", "--cluster", "lab"], ["open sesame\n"])
        assert status == 0
        assert seen.count("passphrase of ") == 1


def at_terminal(user: User, words: list[str], answers: list[str]) -> tuple[str, int]:
    """Run `burla ...` at a terminal and answer its questions; return what it showed, and its code.

    A question must stand for as long as several frames take: drawn over, it can not be read.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(user.home)
        env = {"HOME": str(user.home), "PATH": os.environ["PATH"], "TERM": "xterm"}
        line = [sys.executable, "-m", "burla.cli", *words]
        os.execve(sys.executable, line, env | marks())
    seen, left = "", list(answers)
    try:
        while True:
            seen += os.read(terminal, 65536).decode()
            if left and seen.endswith(".ssh/id_ed25519: "):
                assert not select.select([terminal], [], [], FRAMES_S)[0], seen
                os.write(terminal, left.pop(0).encode())
    except OSError:  # it has ended
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    return seen, os.waitstatus_to_exitcode(status)


def marks() -> dict[str, str]:
    """Return what all processes of this test carry."""
    return {name: value for name, value in os.environ.items() if name.startswith("BURLA_TEST")}


def test_ctrl_c_ends_it_at_once_and_the_same_again_goes_on(user: User, hosts: Hosts) -> None:
    two = [hosts.add(), hosts.add()]
    at_home(user, hosts)
    file = lab(user, hosts, f"tcp://{NETWORK}.1:0")
    with marked():
        with subprocess.Popen(
            [sys.executable, "-m", "burla.cli", "up", str(file)],
            env={"HOME": str(user.home), "PATH": os.environ["PATH"]} | marks(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            next(line for line in process.stderr if "installing" in line)
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        assert process.returncode == 130
        assert "Interrupted: run the same command again, it continues from there.\n" in rest
        assert "joining" not in rest
        said = user.said("up", str(file))
        assert said["ready"] == 2
        assert any(host.address in user.use(said["scheduler"]) for host in two)
        assert user.said("down", "--cluster", "lab")["failed"] == 0


def test_what_can_not_work_is_refused_before_anything_is_begun(user: User) -> None:
    host = ("--ssh", "root@10.0.0.2")
    for words, why in (
        ([], "a cluster needs nodes"),
        (host, "set bind to an address of this machine"),
        ((*host, "--bind", "10.0.0.1:1"), "begins with neither tcp:// nor ipc://"),
        ((*host, "--bind", "tcp://127.0.0.1:0"), "only this machine can reach, not root@10.0.0.2"),
        (("--ssh", "a b", "--bind", "tcp://10.0.0.1:0"), "'a b' is not a host"),
        (("--ssh", "no.such.invalid", "--bind", "tcp://10.0.0.1:0"), "no host of this name"),
    ):
        stderr = user.burla("up", *words, code=78).stderr
        assert why in stderr
        assert "starting" not in stderr
    nowhere = ("--bind", "tcp://10.0.0.1:0", "--wheelhouse", "/nowhere")
    assert "there is no such folder" in user.burla("up", *host, *nowhere, code=1).stderr
    assert "none is known here" in user.burla("status", code=69).stderr
    assert [path for path in user.files() if "state/burla/" in path] == []


def test_what_can_not_be_changed_is_refused_and_nothing_is_spoilt(user: User) -> None:
    with marked():
        user.burla("up", "--local")
        stderr = user.burla("up", "--bind", "tcp://127.0.0.1:0", code=78).stderr
        assert "already runs at ipc://" in stderr
        assert "run `burla down --cluster default` first" in stderr
        assert "is not a host" in user.burla("nodes", "add", "a b", code=78).stderr
        assert user.said("status")["ready"] == 1
        assert user.said("down")["failed"] == 0
