"""Where the files of a function go: to the caller's directory, or to a folder of the job."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import cluster
from scripts import run, succeed, write
from tiers import BEFORE, nodes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

WRITE = """
import os, time
from burla import remote_parallel_map

def write(number):
    time.sleep(0.02)
    with open(f"out{number}.txt", "w") as file:
        file.write("text")
    with open(f"out{number}.txt") as file:
        text = file.read()
    with open(os.path.join(os.environ["BURLA_JOB_DIR"], f"own{number}"), "w") as file:
        file.write("text")
    return text, os.getcwd() == os.environ["BURLA_JOB_DIR"], os.environ["BURLA_NODE"]

def tidy(number):
    write(number)
    for entry in os.listdir("."):
        if entry.endswith(f"{number}.txt") or entry == f"own{number}":
            os.unlink(entry)

def listing(number):
    return sorted(os.listdir(os.environ["BURLA_JOB_DIR"]))
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory in which a socket may lie, and that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_in_a_private_cluster_files_go_where_they_would_go_here(tmp_path: Path) -> None:
    source = WRITE + "print(remote_parallel_map(write, range(2)))"
    here = tmp_path / "here"
    here.mkdir()
    got = succeed(source, tmp_path, cwd=here, private=True)
    assert got.count("('text', False, ") == 2
    assert sorted(path.name for path in here.iterdir()) == ["out0.txt", "out1.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make nodes of all tiers")
@pytest.mark.parametrize("tier", list(BEFORE))
def test_where_the_callers_directory_is_not_files_go_to_a_folder_of_the_job(
    tmp_path: Path, short: Path, tier: str
) -> None:
    """Once a job a line on stderr names a file that is lost, also with several nodes."""
    gone = short / "gone"
    gone.mkdir()
    script = f"""{WRITE}
os.chdir({str(gone)!r})
os.rmdir({str(gone)!r})  # nobody has it now
wrote = remote_parallel_map(write, range(8))
print({{found[:2] for found in wrote}})
import own_beside
def own(number):
    def fails(path):
        try:
            open(path, "a").close()
        except OSError:
            return True
    place = os.path.dirname(own_beside.__file__)
    return own_beside.WORD, fails(own_beside.__file__), fails(os.path.join(place, "new"))
print(remote_parallel_map(own, [0]))
print(remote_parallel_map(listing, [0]))
remote_parallel_map(tidy, [0])
"""
    write(tmp_path, own_beside="WORD = 'own'")
    with nodes_of(short, tier, 2, 2):
        done = run(script, tmp_path)
    expected = "{('text', True)}\n[('own', True, True)]\n[[]]\n"
    assert done.stdout == expected, done.stderr
    assert "'o" in done.stderr
    assert done.stderr.count("removed with the job") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make nodes of all tiers")
def test_a_directory_that_a_job_may_not_even_read_is_not_worked_in(
    tmp_path: Path, short: Path
) -> None:
    """As the home of the nodelet's user is, which Landlock hides: its mode would allow all."""
    home = short / "home"
    home.mkdir(0o755)
    before = os.environ["HOME"]
    os.environ["HOME"] = str(home)
    try:
        with nodes_of(short, "landlock", 2):
            done = run(WRITE + "print(remote_parallel_map(write, [0])[0][:2])", tmp_path, cwd=home)
    finally:
        os.environ["HOME"] = before
    assert done.stdout == "('text', True)\n", done.stderr
    assert "'out0.txt' was written" in done.stderr
    assert os.listdir(home) == []


def test_a_directory_that_can_only_be_read_is_worked_in_and_errors_say_so(tmp_path: Path) -> None:
    """Relative names mean the same as here; nothing is written where nobody looks for it."""
    if os.geteuid() != 0:
        pytest.skip("only root has nodes of this tier")
    source = f"{WRITE}\nos.chdir('/usr')\nprint(remote_parallel_map(os.listdir, ['.'])[0] ==" + (
        " os.listdir())\nremote_parallel_map(write, [1])"
    )
    with cluster(tmp_path, 1, isolation="best"):
        done = run(source, tmp_path)
    assert done.stdout == "True\n"
    last = done.stderr[done.stderr.index("OSError") :]
    assert "Read-only file system: 'out1.txt'" in last
    assert "cannot write to your working directory on node node0" in last
    assert "BURLA_JOB_DIR" in last


def test_a_loop_of_maps_keeps_the_folder_and_another_function_gets_an_empty_one(
    tmp_path: Path,
) -> None:
    source = f"""{WRITE}
def count(number):
    open(os.path.join(os.environ["BURLA_JOB_DIR"], str(time.monotonic_ns())), "w").close()
    return len(listing(0)), os.environ["BURLA_JOB_ID"]
counts = [remote_parallel_map(count, [0])[0] for _ in range(3)]
print([found for found, _ in counts], len({{job for _, job in counts}}))
print(remote_parallel_map(listing, [0]))
"""
    with cluster(tmp_path, 1):
        assert succeed(source, tmp_path) == "[1, 2, 3] 3\n[[]]\n"


SHIPPED = """
import os
from burla import remote_parallel_map
os.makedirs("data/inner", exist_ok=True)
for name in ("data/a.csv", "data/inner/b.csv", "../c.csv"):
    with open(name, "w") as file:
        file.write(name)

def read(number):
    with open("data/a.csv") as file:
        found = file.read()
    with open(os.path.join(os.environ["BURLA_JOB_DIR"], "data/inner/b.csv")) as file:
        found += file.read()
    with open("c.csv", "a") as file:
        file.write("!")
    with open("c.csv") as file:
        return found, file.read(), os.getcwd() == os.environ["BURLA_JOB_DIR"]

files = {"data": "data", "c.csv": "../c.csv"}
for _ in range(2):
    print(remote_parallel_map(read, [1], files=files))
print(remote_parallel_map(lambda x: len(os.listdir("data")), [1], files=["data"]))
try:
    remote_parallel_map(read, [1], files="gone")
except FileNotFoundError as error:
    print(error.filename)
"""
EXPECTED = "[('data/a.csvdata/inner/b.csv', '../c.csv!', True)]\n" * 2 + "[2]\ngone\n"


def test_files_of_the_call_are_in_the_folder_of_the_job_as_they_were_given(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    assert succeed(SHIPPED, tmp_path, cwd=here, private=True) == EXPECTED
    with cluster(tmp_path, 1, 1, bind="tcp://127.0.0.1:0", isolation="best"):
        assert succeed(SHIPPED, tmp_path, cwd=here) == EXPECTED
    assert (tmp_path / "c.csv").read_text() == "../c.csv"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make nodes of all tiers")
@pytest.mark.parametrize("before", [(), BEFORE["namespaces"]], ids=["uid", "namespaces"])
def test_a_shared_file_system_can_be_written_to_in_isolation(
    short: Path, tmp_path: Path, before: tuple[str, ...]
) -> None:
    source = """
    import os
    import burla
    from burla import remote_parallel_map

    def write(number):
        with open(os.path.join(burla.shared, f"{number}.txt"), "w") as file:
            file.write(f"{number}")
        try:
            open(os.path.dirname(burla.shared) + "/beside", "w").close()
        except OSError:
            return burla.shared

    print(set(remote_parallel_map(write, range(4), spinner=False)) == {burla.shared})
    """
    with tempfile.TemporaryDirectory(dir="/opt", prefix="burla-test-") as place:
        Path(place).chmod(0o755)
        shared = Path(place, "shared")
        shared.mkdir()
        shared.chmod(0o1777)
        options = ("--shared", str(shared))
        with cluster(short, isolation="best", options=options) as made:
            Path(made.address.removeprefix("ipc://")).chmod(0o777)
            made.add_node(2, prefix=before)
            assert succeed(source, tmp_path) == "True\n"
            assert os.listdir(place) == ["shared"]
            assert sorted(path.read_text() for path in shared.iterdir()) == ["0", "1", "2", "3"]


def test_without_a_shared_file_system_its_name_is_an_error_in_words(tmp_path: Path) -> None:
    source = """
    import burla
    from burla import remote_parallel_map
    for ask in (lambda: burla.shared, lambda: remote_parallel_map(lambda x: burla.shared, [1])):
        try:
            ask()
        except burla.NoSharedFiles as error:
            print("no file system in common: name it in the cluster" in str(error))
    """
    with cluster(tmp_path, 1):
        assert succeed(source, tmp_path) == "True\nTrue\n"
