"""`burla auth rotate` of the scheduler's key and of nodes', in the middle of a job."""

from pathlib import Path

import psutil
import pytest
from marked import marked
from steady import SteadyJob
from users import User
from waiting import wait_until

from burla.transport.addresses import take_apart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
HASHES = """
from burla import remote_parallel_map as m
import os, time
def f(i):
    time.sleep(0.2)
    return os.environ["BURLA_NODE"], hash("text")
print(sorted(set(m(f, range(8)))))
"""


def pid_in(file: Path) -> int:
    return int(file.read_text().split()[0])


def test_all_keys_are_replaced_and_no_call_is_lost_or_repeated(user: User, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    bind = 'bind = "tcp://127.0.0.1:0"\ndrain_s = 60\n'
    file.write_text(f"{bind}[local]\nnodes = 2\ncpus = 2\n")
    folder = user.home / ".local/state/burla/lab"
    with marked() as mark:
        address = user.said("up", str(file))["scheduler"]
        hashes = user.python(HASHES)
        assert hashes.count("local-") == 2
        scheduler, keys = pid_in(folder / "scheduler.child"), {}
        for name in ("local-1", "local-2"):
            keys[name] = (folder / f"{name}.key").read_text()
        job = SteadyJob(user, address, mark, tmp_path)

        said = user.said("auth", "rotate", "--nodes")
        assert said == {"renewed": ["local-1", "local-2"], "failed": {}}
        for name, before in keys.items():
            assert (folder / f"{name}.key").read_text() != before
            rows = [row for row in user.listed("auth", "list") if row["user"] == name]
            assert sorted(bool(row["expires"]) for row in rows) == [False, True]

        said = user.said("auth", "rotate", "--server", "--overlap", "0")
        new = take_apart(said["address"])
        assert new.endpoint == take_apart(address).endpoint
        assert new.key != take_apart(address).key
        assert new.key is not None
        known = folder / "keys/server-keys.json"
        wait_until(known.exists, "the new key counts")
        wait_until(lambda: said["server_key"] in (folder / "scheduler.ready").read_text(), "so")
        job.end()
        assert pid_in(folder / "scheduler.child") == scheduler

        assert user.said("status")["scheduler"] == said["address"]
        assert user.said("status")["ready"] == 2
        assert user.python(HASHES) == hashes  # with what is stored, which names the new key now
        assert new.key.hex() in (user.home / ".config/burla/config.toml").read_text()
        user.environment["BURLA_CLUSTER"] = address  # of before
        assert user.python(HASHES) == hashes
        del user.environment["BURLA_CLUSTER"]

        for name in ("scheduler", "local-1"):  # they were started with the address of before
            psutil.Process(pid_in(folder / f"{name}.child")).kill()
        wait_until(lambda: user.seen("status")["ready"] == 2, "both are back")
        assert user.python(HASHES) == hashes
        assert user.said("up")["ready"] == 2  # the nodes are made anew, with the address of now
        assert said["address"] in (folder / "local-2.sh").read_text()
        assert user.python(HASHES) == hashes
        (folder / "local-2.key").unlink()
        (folder / "local-2.servers").unlink()
        user.burla("nodes", "drain", "local-2")
        assert user.said("up")["ready"] == 2  # one that comes anew, under the key of now
        assert user.python(HASHES) == hashes
        user.said("down")
        assert mark.processes() == []


def test_whose_head_it_is_knows_the_new_key_without_having_been_connected(user: User) -> None:
    """And what is stored goes with the cluster."""
    with marked():
        user.said("up", "--local", "--bind", "tcp://127.0.0.1:0")
        said = user.said("auth", "rotate", "--server", "--overlap", "0")
        folder = user.home / ".local/state/burla/default"
        ready = folder / "scheduler.ready"
        wait_until(lambda: said["server_key"] in ready.read_text(), "the new key counts")
        wait_until(lambda: user.seen("status")["ready"] == 1, "the node is back")
        assert len(user.listed("nodes", "list")) == 1
        assert "go on using" not in user.burla("up").stderr
        user.said("down")
    assert not (user.home / ".config/burla/config.toml").exists()
