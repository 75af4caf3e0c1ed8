"""The private cluster's program: scheduler and nodelet in one process, which ends with either."""

from pathlib import Path

import pytest
from scripts import succeed

pytestmark = pytest.mark.slow

START = """
import glob, json, os, signal, sys, time
import psutil
from burla import ClusterError, private_cluster, remote_parallel_map

def wait_until(true):
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)

assert remote_parallel_map(abs, [-1]) == [1]
cluster = private_cluster._cluster
daemon = psutil.Process(cluster._daemon.pid)
"""
AGAIN = """
assert remote_parallel_map(abs, [-2]) == [2]
assert private_cluster._cluster is not cluster
print("fine")
"""


def test_it_is_one_process_with_its_zygote_beside_it(tmp_path: Path) -> None:
    text = START + "assert len(daemon.children()) == 1\nprint(*daemon.cmdline())"
    assert " burla.private.cli " in succeed(text, tmp_path, private=True)


def test_its_zygote_is_forked_from_it_and_has_nothing_of_a_daemon(tmp_path: Path) -> None:
    text = """
def look(x):
    import gc, logging, sys, warnings
    loaded = {"zmq", "asyncio", "uvloop", "burla.transport.sockets"} & sys.modules.keys()
    return loaded, logging.root.handlers, [f for f in warnings.filters if f[0] == "default"][1:]

(zygote,) = daemon.children()
assert zygote.cmdline() == daemon.cmdline()
assert os.path.join(cluster._directory, "s") in zygote.cmdline()
assert os.getsid(zygote.pid) == zygote.pid
opened = {os.readlink(path) for path in glob.glob(f"/proc/{zygote.pid}/fd/*")}
assert not [name for name in opened if "eventpoll" in name or name.endswith("/s")], opened
assert remote_parallel_map(look, [1]) == [(set(), [], [])]
gone = sys.path.pop(0)  # the folder of the script, where the daemon finds modules, too
assert gone not in remote_parallel_map(lambda x: list(sys.path), [1])[0]
print("fine")
"""
    assert succeed(START + text, tmp_path, private=True) == "fine\n"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o777, 0o600)])
def test_files_of_calls_are_for_whom_those_of_their_caller_are(
    umask: int, mode: int, tmp_path: Path
) -> None:
    text = f"""
import os
os.umask({umask})
from burla import private_cluster, remote_parallel_map

def make(name):
    with open(name, "x") as file:
        return os.fstat(file.fileno()).st_mode & 0o777

assert remote_parallel_map(make, [{str(tmp_path / "made")!r}]) == [{mode}]
assert not os.stat(private_cluster._cluster._path).st_mode & 0o077
print("fine")
"""
    assert succeed(text, tmp_path, private=True) == "fine\n"


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_without_regard_to_the_environment_its_workers_have_one_seed_as_ever(
    option: str, tmp_path: Path
) -> None:
    text = f"""
seen = {str(tmp_path / "seen")!r}
os.mkdir(seen)

def look(x):
    open(os.path.join(seen, str(os.getpid())), "w").close()
    wait_until(lambda: len(os.listdir(seen)) > 1)  # another worker is there
    return os.getpid(), hash("burla")

told = dict(remote_parallel_map(look, range(8)))
assert len(told) > 1
assert len(set(told.values())) == 1, told
print("fine")
"""
    script = tmp_path / "script.py"
    script.write_text(START + text)
    assert succeed([option, str(script)], tmp_path, private=True) == "fine\n"


def test_sigusr2_writes_the_state_of_both_parts(tmp_path: Path) -> None:
    text = """
paths = [os.path.join(cluster._directory, f"{n}-state.json") for n in ("scheduler", "nodelet")]
daemon.send_signal(signal.SIGUSR2)
wait_until(lambda: all(map(os.path.exists, paths)))
scheduler, nodelet = (json.load(open(path)) for path in paths)
assert [node["cpus"] for node in scheduler["nodes"]] == [nodelet["cpus"]]
assert nodelet["welcomed_by"] is not None
log = os.path.join(cluster._directory, "cluster.log")
wait_until(lambda: open(log).read().count("state written to") == 2)
print("fine")
"""
    assert succeed(START + text, tmp_path, private=True) == "fine\n"


@pytest.mark.parametrize("what", ["zygote", "whole"])
def test_the_death_of_a_part_ends_the_call_in_words_and_the_next_is_well(
    what: str, tmp_path: Path
) -> None:
    text = """
def end(x, what=sys.argv[1], daemon=daemon.pid):
    import os, signal, time
    os.kill(os.getppid() if what == "zygote" else daemon, signal.SIGKILL)
    time.sleep(60)

sys.stderr = None  # that the call waits is not of interest
try:
    remote_parallel_map(end, [1])
except ClusterError as error:
    shown = str(error)
how = "exit status 1" if sys.argv[1] == "zygote" else "signal SIGKILL"
assert shown.startswith(f"the private cluster of this process ended by {how}"), shown
assert sys.argv[1] != "zygote" or "the process that forks workers has died" in shown, shown
assert shown.endswith("The next call starts a new private cluster"), shown
"""
    directory = tmp_path / "script.py"
    directory.write_text(START + text + AGAIN)
    assert succeed([str(directory), what], tmp_path, private=True) == "fine\n"


def test_one_that_is_drained_finishes_its_call_and_the_next_call_gets_another(
    tmp_path: Path,
) -> None:
    text = """
def slow(x, daemon=daemon.pid):
    import os, signal, time
    os.kill(daemon, signal.SIGUSR1)
    time.sleep(0.2)
    return x

assert remote_parallel_map(slow, [3]) == [3]
wait_until(lambda: cluster.failed() is not None)
assert "exit status 0" in cluster.failed()
"""
    assert succeed(START + text + AGAIN, tmp_path, private=True) == "fine\n"
