"""`burla up --local` and what follows, as a user runs them."""

import shlex
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest
from marked import marked
from users import SCRIPT, User
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = """
from burla import remote_parallel_map
import time

def f(x):
    print("call", x)
    time.sleep(0.3)
    return x

print(remote_parallel_map(f, list(range(10)), max_parallelism=1) == list(range(10)))
"""


def pid_in(file: Path) -> int:
    """Return the process id in a file of a daemon or of its supervisor."""
    return int(file.read_text().split()[0])


def test_a_cluster_on_this_machine_comes_is_used_is_mended_and_goes(user: User) -> None:
    with marked() as mark:
        said = user.said("up", "--local")
        assert (said["ready"], said["failed"]) == (1, 0)
        address = said["scheduler"]
        assert user.use(address) == "['local-1', 'local-1']\n"

        running = {process.pid for process in mark.processes()}
        again = user.burla("up")
        assert "1 ready, 0 failed" in again.stderr
        assert f"export BURLA_CLUSTER={shlex.quote(address)}" in again.stderr
        assert len(running) > 2  # a scheduler, a nodelet, and what that has forked
        daemons = {
            p.pid for p in mark.processes() if "burla/system/launch.py" in " ".join(p.cmdline())
        }
        assert len(daemons) == 2
        assert daemons <= running  # nothing was begun anew

        folder = user.home / ".local/state/burla/default"
        for name in ("scheduler", "local-1"):
            pid = pid_in(folder / f"{name}.child")  # it is started again, without anybody
            psutil.Process(pid).kill()
            assert user.use(address) == "['local-1', 'local-1']\n"
            assert pid_in(folder / f"{name}.child") != pid
            psutil.Process(pid_in(folder / f"{name}.pid")).kill()  # who does that, too
            user.burla("status", code=1)
            assert user.said("up")["scheduler"] == address
            assert user.use(address) == "['local-1', 'local-1']\n"

        user.burla("nodes", "drain", "local-1")
        assert user.said("status", code=1)["nodes"][0]["phase"] == "stopped"
        user.burla("up")
        assert user.said("status")["nodes"][0]["phase"] == "ready"

        assert user.said("down")["failed"] == 0
        assert mark.processes() == []
        assert [f for f in user.files() if "burla/" in f] == []
        assert user.said("down")["nodes"] == []  # a second time does nothing


def test_over_tcp_it_has_keys_and_its_caller_is_in(user: User) -> None:
    with marked() as mark:
        said = user.said("up", "--local", "--bind", "tcp://127.0.0.1:0")
        address = said["scheduler"]
        assert address.startswith("burla://127.0.0.1:")
        assert user.use(address) == "['local-1', 'local-1']\n"
        folder = user.home / ".local/state/burla/default"
        assert not (folder / "local-1.token").exists()
        for name in ("scheduler", "local-1"):
            psutil.Process(pid_in(folder / f"{name}.pid")).kill()
            assert user.said("up")["scheduler"] == address
            assert user.use(address) == "['local-1', 'local-1']\n"
        user.said("down")
        assert mark.processes() == []
    assert [f for f in user.files() if "burla/" in f] == [".config/burla/user.key"]


def test_nodes_join_a_scheduler_that_runs_already_where_its_keys_are(user: User) -> None:
    with marked():
        first = user.said("up", "--local", "--bind", "tcp://127.0.0.1:0")["scheduler"]
        line = ("up", "--local", "--cluster", "more", "--scheduler", first)
        done = user.burla(*line, code=1)
        assert "cannot make a join token" in done.stderr
        keys = user.home / ".config/burla/scheduler"
        keys.symlink_to(user.home / ".local/state/burla/default/keys")
        assert user.said(*line)["ready"] == 1
        user.said("down", "--cluster", "more")
        user.said("down")


def test_what_was_made_is_in_use_until_it_is_gone(user: User) -> None:
    """No address is typed: every command and script finds the cluster."""
    with marked() as mark:
        done = user.burla("up", "--local", "--bind", "tcp://127.0.0.1:0", "--cluster", "lab")
        assert "Your scripts and commands use it from now on" in done.stderr
        assert user.python(SCRIPT) == "['local-1', 'local-1']\n"
        assert user.listed("nodes", "list")[0]["name"] == "local-1"
        assert user.said("status")["cluster"] == "lab"
        roles = {row["user"]: row["role"] for row in user.listed("auth", "list")}
        assert roles["local-1"] == "node"
        line = shlex.split(user.said("login", "--cluster", "lab")["command"])
        user.burla(*line[1:])  # word for word what it says
        checks = {check["name"]: check["state"] for check in user.listed("doctor")}
        assert [checks[name] for name in ("port", "handshake", "versions", "nodes")] == ["pass"] * 4
        keys = user.home / ".local/state/burla/lab/keys/keys.json"
        keys.chmod(0o640)
        stdout = user.burla("doctor", code=1).stdout
        assert f"{keys} is refused: other users can access it" in stdout
        keys.chmod(0o600)

        done = user.burla("up", "--local", "--cluster", "other")
        assert "go on using burla://127.0.0.1" in done.stderr
        assert user.said("status")["cluster"] == "lab"
        assert "has no keys" in user.burla("auth", "list", "--cluster", "other", code=69).stderr
        assert len(user.listed("nodes", "list", "--cluster", "other")) == 1
        address = user.said("status", "--cluster", "other")["scheduler"]
        assert len(user.listed("nodes", "list", "--cluster", address)) == 1
        user.burla("down", "--cluster", "other")
        assert user.said("status")["cluster"] == "lab"
        assert user.said("up")["cluster"] == "lab"  # without a word: mends the one in use
        user.burla("down")
        assert mark.processes() == []
    assert [f for f in user.files() if "burla/" in f] == [".config/burla/user.key"]
    assert "BURLA_CLUSTER is not set" in user.burla("nodes", "list", code=78).stderr


def test_other_administrators_manage_keys_from_elsewhere_and_users_do_not(user: User) -> None:
    """Each has a home of their own: nothing of the head's files is to be seen there."""
    with marked(), tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as one, \
            tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as two:  # fmt: skip
        other, guest = User(Path(one)), User(Path(two))
        address = user.said("up", "--local", "--bind", "tcp://127.0.0.1:0")["scheduler"]
        for who, name, role in ((other, "anna", "admin"), (guest, "guest", "client")):
            key = who.said("login", address)["key"]
            assert "does not know this key" in who.burla("auth", "list", code=77).stderr
            user.burla("auth", "add", key, "--user", name, "--role", role)
        assert "not allowed" in guest.burla("auth", "list", code=77).stderr
        other.burla("auth", "add", "ab" * 32, "--user", "bob")
        assert {"bob", "anna"} <= {row["user"] for row in other.listed("auth", "list")}
        assert other.said("auth", "revoke", "bob")["revoked"] == ["ab" * 32]
        assert len(bytes.fromhex(other.said("auth", "token")["token"])) == 32
        assert (
            "no key or user is called bert" in other.burla("auth", "revoke", "bert", code=1).stderr
        )
        log = (user.home / ".local/state/burla/default/keys/audit.log").read_text()
        assert '"user": "anna"' in log
        assert "revoke keys bob" in log
        assert [node["name"] for node in other.listed("nodes", "list")] == ["local-1"]
        user.burla("down")


def test_a_key_is_replaced_in_the_middle_of_a_job(user: User) -> None:
    with marked():
        user.burla("up", "--local", "--bind", "tcp://127.0.0.1:0")
        key = user.home / ".config/burla/user.key"
        before = key.read_text()
        with user.started(LONG) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "call 0\n"
            said = user.said("auth", "rotate", "--overlap", "1")
            out, _ = process.communicate(timeout=100)
        assert out.splitlines() == [*(f"call {x}" for x in range(1, 10)), "True"]
        assert key.read_text() != before
        assert not key.with_name("user.key.new").exists()
        assert user.python(SCRIPT) == "['local-1', 'local-1']\n"  # by the new one
        rows = {row["key"]: row for row in user.listed("auth", "list")}
        assert rows[said["key"]]["role"] == "admin"
        assert rows[said["old"]]["expires"] == said["old_expires"]
        user.burla("auth", "revoke", said["old"])
        assert user.said("auth", "rotate")["old"] == said["key"]
        user.burla("down")
        assert "BURLA_CLUSTER is not set" in user.burla("auth", "rotate", code=78).stderr


def test_quotas_are_said_by_the_file_and_changed_while_it_runs(user: User) -> None:
    file = user.home / "lab.toml"
    text = "[local]\nnodes = 1\n[quotas.everybody]\nbytes = 1\n"
    file.write_text(text)
    assert "told apart by their keys" in user.burla("up", str(file), code=78).stderr
    file.write_text('bind = "tcp://127.0.0.1:0"\n' + text)
    with marked():
        user.burla("up", str(file))
        wait_until(lambda: "at most 1 bytes" in user.tried(SCRIPT), "it counts")
        user.burla("auth", "quota", "--reset")
        wait_until(lambda: "local-1" in user.tried(SCRIPT), "it counts no more")
        user.burla("up")  # does not bring back what was changed
        assert user.listed("auth", "quota")[0]["bytes"] is None
        user.burla("down")


def test_a_head_that_was_lost_comes_back_from_its_backup_in_the_middle_of_a_job(user: User) -> None:
    with marked() as mark:
        user.burla("up", "--local", "--bind", "tcp://127.0.0.1:0")
        folder = user.home / ".local/state/burla/default"
        with user.started(LONG) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "call 0\n"
            user.burla("auth", "add", "ab" * 32, "--user", "anna")
            made = user.said("backup", "b.tar.gz")
            for kind in ("pid", "child"):  # who would start it again, and itself
                psutil.Process(pid_in(folder / f"scheduler.{kind}")).kill()
            (folder / "cluster.json").unlink()
            shutil.rmtree(folder / "keys")
            assert "there is no cluster" in user.burla("status", code=69).stderr
            assert user.said("restore", "b.tar.gz") == made
            assert user.said("up")["scheduler"] == made["address"]
            out, _ = process.communicate(timeout=100)
        assert out.splitlines() == [*(f"call {x}" for x in range(1, 10)), "True"]
        assert "anna" in [row["user"] for row in user.listed("auth", "list")]
        user.burla("down")
        assert mark.processes() == []


@pytest.mark.parametrize("bind", [(), ("--bind", "tcp://127.0.0.1:0")])
def test_who_takes_a_cluster_down_is_told_whose_jobs_end_and_callers_hear_it(
    user: User, bind: tuple[str, ...]
) -> None:
    with marked() as mark:
        user.burla("up", "--local", *bind)
        with user.started(LONG.replace("0.3", "60")) as process:  # it runs when it is taken down
            assert process.stdout is not None
            assert process.stdout.readline() == "call 0\n"
            said = user.said("down")
            (job,) = said["jobs_ended"]
            assert job["name"] == "f"
            assert job["left"] >= 1
            assert job["user"]
            _, err = process.communicate(timeout=30)  # a silence would take 60 s
        assert "burla.errors.ClusterLost: the cluster at " in err
        assert "ran `burla down`" in err
        assert mark.processes() == []


def test_status_says_what_is_so(user: User) -> None:
    """A scheduler that is dead, or stands still, is not ready, nor is any node of it."""
    with marked():
        user.burla("up", "--local", "--bind", "tcp://127.0.0.1:0")
        assert user.said("status")["state"] == "ready"
        folder = user.home / ".local/state/burla/default"
        scheduler, node = (
            psutil.Process(pid_in(folder / f"{name}.child")) for name in ("scheduler", "local-1")
        )
        node.suspend()
        wait_until(lambda: phases(user) == ("ready", ["lost"]), "it is lost", 40.0)
        assert "since 20" in user.said("status", code=1)["nodes"][0]["why"]
        (seen,) = user.listed("nodes", "list")
        assert (seen["state"], bool(seen["why"])) == ("lost", True)
        assert "nothing heard for 15 s" in user.burla("nodes", "list").stdout
        node.resume()
        wait_until(lambda: phases(user) == ("ready", ["ready"]), "it is back")
        scheduler.suspend()
        assert phases(user) == ("silent", ["silent"])
        psutil.Process(pid_in(folder / "scheduler.pid")).kill()  # who would start it again
        scheduler.kill()
        wait_until(lambda: phases(user) == ("stopped", ["silent"]), "it is dead")
        user.burla("up")
        wait_until(lambda: phases(user) == ("ready", ["ready"]), "it is mended")
        user.burla("down")


def phases(user: User) -> tuple[str, list[str]]:
    """Return how the scheduler and its nodes are."""
    said = user.seen("status")
    return said["state"], [node["phase"] for node in said["nodes"]]


def test_a_toml_file_says_it_all(user: User, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("[local]\nnodes = 2\ncpus = 1\n")
    with marked():
        said = user.said("up", str(file))
        assert said["cluster"] == "lab"
        assert [node["name"] for node in said["nodes"]] == ["local-1", "local-2"]
        assert (
            "is not a node of this cluster"
            in user.burla("nodes", "remove", "x", "--cluster", "lab", code=1).stderr
        )
        user.burla("nodes", "remove", "local-2", "--cluster", "lab")
        assert len(user.said("status", str(file))["nodes"]) == 1
        user.burla("down", str(file))


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["up"], 78, "a cluster needs nodes"),
        (["up", "--ssh", "10.0.0.2"], 78, "set bind to an address"),
        (["up", "--ssh", "h.invalid"], 78, "there is no host of this name"),
        (["up", "--local", "--bind", "nonsense"], 78, "bind: 'nonsense' is not the address"),
        (["up", "--local", "--scheduler", "tcp://h:1"], 78, "tcp:// goes without keys"),
        (["up", "--local", "--nodes", "2000"], 78, "local.nodes is 2000"),
        (["up", "nowhere.toml"], 78, "nowhere.toml cannot be read"),
        (["status"], 69, "there is no cluster 'default'"),
        (["nodes", "add", "h"], 69, "there is no cluster 'default'"),
        (["nodes", "add"], 2, "Missing argument"),
    ],
)
def test_what_can_not_be_is_said_with_its_exit_code(
    user: User, words: list[str], code: int, text: str
) -> None:
    with marked():
        assert text in user.burla(*words, code=code).stderr
    assert not [f for f in user.files() if f.endswith(("cluster.json", ".pid"))]


def test_two_commands_at_once_do_not_meet(user: User) -> None:
    from burla.provisioning import state
    from burla.provisioning.core import machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURLA_STATE_DIR", str(user.home / "st"))
        with (
            state.alone("c"),
            pytest.raises(machines.ProvisioningError, match="another command is working"),
            state.alone("c"),
        ):
            pass
