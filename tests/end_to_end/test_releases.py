"""Peers of two releases that follow each other serve each other, over TCP with keys.

The release before this one is a wheel that is kept in tests/data: with each release, that one's
takes its place. The release after it is played by this one with a higher protocol number and one
more field in every message, which is all that a release may do to a message.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest
from clusters import cluster
from scripts import unasked

import burla
from burla.protocol.messages import PROTOCOL, PROTOCOL_OLDEST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SCRIPT = """
from burla import remote_parallel_map

def f(i):
    print("line", i)
    return i * i

def fail(i):
    raise ValueError(f"no {i}")

print("sum", sum(remote_parallel_map(f, range(2000))))
try:
    remote_parallel_map(fail, [7])
except ValueError as error:
    print(error, error.burla_input_index)
print(len(remote_parallel_map(lambda data: data, [b"x" * (5 << 20)])[0]))
table = [bytes([i]) * (1 << 20) for i in range(3)]
for _ in range(2):
    print(remote_parallel_map(lambda i: (type(table[i]).__name__, table[i][-1]), range(3)))
"""


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the release that follows this one."""
    folder = tmp_path_factory.mktemp("following")
    folder.chmod(0o755)
    top = Path(burla.__file__).resolve().parent.parent
    for name in ("burla", "scheduler", "nodelet"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(top / name, folder / name, symlinks=True, ignore=skip)
    for file in ("messages.py", "admin_messages.py", "blob_messages.py"):
        path = folder / "burla/protocol" / file
        path.write_text(with_more_fields(path.read_text()))
    return folder


def with_more_fields(source: str) -> str:
    """Return the source of messages with a field more in each, and the next protocol number."""
    was = f"PROTOCOL, PROTOCOL_OLDEST = {PROTOCOL}, {PROTOCOL_OLDEST}"
    source = source.replace(was, f"PROTOCOL, PROTOCOL_OLDEST = {PROTOCOL + 1}, {PROTOCOL}")
    bodies = re.split(r"(?m)^(?=class |@|[A-Z]\w* = )", source)
    kinds = re.compile(r"class (?!Bulk\b)\w+\((m\.)?(Message|Bulk),")  # not what others derive from
    more = '    newer: str = "newer"\n\n\n'
    return "".join(
        body.rstrip("\n") + "\n" + more if kinds.match(body) and "def " not in body else body
        for body in bodies
    )


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the last release."""
    folder = tmp_path_factory.mktemp("last")
    folder.chmod(0o755)
    (wheel,) = (Path(__file__).parent.parent / "data").glob("burla-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@contextmanager
def of_release(folder: Path | None) -> Iterator[None]:
    """Start what is started inside from a folder; None: from this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        if folder is not None:
            patch.setenv("PYTHONPATH", str(folder))
            patch.setenv("PYTHONSAFEPATH", "1")  # not the checkout that is the working directory
        yield


@pytest.mark.parametrize("newer", ["scheduler", "scheduler nodelet", "scheduler client"])
def test_the_next_release_will_serve_this_one(newer: str, following: Path, tmp_path: Path) -> None:
    serve_a_caller(dict.fromkeys(newer.split(), following), tmp_path)


@pytest.mark.parametrize("older", ["nodelet", "client", "nodelet client"])
def test_the_last_release_is_served(older: str, last: Path, tmp_path: Path) -> None:
    serve_a_caller(dict.fromkeys(older.split(), last), tmp_path)


def serve_a_caller(release: dict[str, Path], tmp_path: Path) -> None:
    """Run a cluster and a caller, each from the folder of its release, or else from this one."""
    with of_release(release.get("scheduler")):
        running = cluster(tmp_path, bind="tcp://127.0.0.1:0")
        made = running.__enter__()
    try:
        with of_release(release.get("nodelet")):
            made.add_node(2)
        done = call(release.get("client"))
        big = str([("bytes", i) for i in range(3)])
        last = [f"sum {sum(i * i for i in range(2000))}", "no 7 0", str(5 << 20), big, big]
        expected = [*(f"line {i}" for i in range(2000)), *last]
        assert sorted(done.stdout.splitlines()) == sorted(expected)
        assert unasked(done.stderr) == ""
    finally:
        running.__exit__(None, None, None)


def call(folder: Path | None) -> subprocess.CompletedProcess[str]:
    """Return how a script of a caller of one release ends; it must end well."""
    with of_release(folder):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    return done


def test_a_newer_caller_is_told_which_command_helps(following: Path, tmp_path: Path) -> None:
    with cluster(tmp_path, 1, bind="tcp://127.0.0.1:0"), of_release(following):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
        )
    assert "an administrator upgrades the cluster with `burla up` of a newer burla" in done.stderr
