"""`hash(key) % n` means the same in all calls of a job, and what it means here if a seed is set."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import cluster
from scripts import succeed
from tiers import BEFORE, nodes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ASK = """
import datetime, os, subprocess, sys, time
from burla import remote_parallel_map

def hashes():
    words = [f"word{number}" for number in range(50)]
    day = hash(datetime.datetime(2020, 1, 2))
    return hash("key"), hash(b"key"), day, tuple(set(words)), os.environ.get("PYTHONHASHSEED")

def ask(number):
    time.sleep(0.05)  # so that all take part
    started = number or subprocess.check_output([sys.executable, "-c", "print(hash('key'))"])
    return hashes(), os.environ["BURLA_NODE"], os.getpid(), started

def other(number):
    return ask(number)
"""
ALL = """
asked = [remote_parallel_map(function, range(count))
         for function in (ask, other) for count in (1, 2, 8, 8)]
answers = [answer for answers in asked for answer in answers]
kinds = {answer[0] for answer in answers}
is_here = kinds == {hashes()}
started = {int(answer[3]) == hash("key") for answer in answers if isinstance(answer[3], bytes)}
workers = {answer[1:3] for answer in answers}
print(len(kinds), is_here, started, len({node for node, _ in workers}), len(workers) > 1)
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory in which a socket may lie, and that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def environment(seed: str | None) -> dict[str, str]:
    """Return that of a caller with this seed; it goes to the cluster that BURLA_CLUSTER names."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    return env if seed is None else env | {"PYTHONHASHSEED": seed}


@pytest.mark.parametrize("seed", ["0", "5", None])
def test_two_nodes_agree_with_each_other_and_with_a_caller_that_has_a_seed(
    tmp_path: Path, seed: str | None
) -> None:
    with cluster(tmp_path, 2, 2, bind="tcp://127.0.0.1:0", isolation="best"):
        got = succeed(ASK + ALL, tmp_path, env=environment(seed))
    assert got == ("1 True {True} 2 True\n" if seed else "1 False {False} 2 True\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make nodes of all tiers")
@pytest.mark.parametrize("tier", list(BEFORE))
def test_a_seed_reaches_the_workers_of_each_tier(tmp_path: Path, short: Path, tier: str) -> None:
    with nodes_of(short, tier, 2):
        with_seed = succeed(ASK + ALL, tmp_path, env=environment("5"))
        without = succeed(ASK + ALL, tmp_path, env=environment(None))
    assert with_seed == "1 True {True} 1 True\n"
    assert without == "1 False {False} 1 True\n"


@pytest.mark.parametrize(
    ("options", "seed", "is_here"),
    [((), "0", True), ((), "5", True), ((), None, False), (("-R",), "5", False)],
)
def test_a_private_cluster_has_the_seed_of_its_caller(
    tmp_path: Path, options: tuple[str, ...], seed: str | None, is_here: bool
) -> None:
    how = {"options": options, "env": environment(seed), "private": True}
    source = f"{ASK}\nhere = hashes()[:4]\n{ALL}\nprint({{kind[:4] for kind in kinds}} == {{here}})"
    assert succeed(source, tmp_path, **how).splitlines()[1] == str(is_here)
    changed = source.replace("\nhere =", "\nos.environ['PYTHONHASHSEED'] = '6'\nhere =")
    first, second = succeed(changed, tmp_path, **how).splitlines()
    assert (first[0], second) == ("1", str(is_here))


DYING = """
def once(number):
    try:
        os.close(os.open(f"{directory}/{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return hash("key")
    os._exit(1)

directory = sys.argv[1]
print({found == hash("key") for found in remote_parallel_map(once, range(6))})
"""


def test_a_worker_that_dies_is_replaced_by_one_with_the_same_seed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ASK + DYING)
    line = [str(tmp_path / "script.py"), str(tmp_path)]
    with cluster(tmp_path, 2):
        assert succeed(line, tmp_path, env=environment("5")) == "{True}\n"
