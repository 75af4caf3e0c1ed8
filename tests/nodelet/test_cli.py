"""`burla-nodelet`: what it offers of this machine, what it refuses, how it ends."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import wait_gone

from burla.nodelet.config import (
    GB,
    NodeletConfig,
    cpu_quotas,
    host_name,
    memory_limits,
    usable_cpus,
    usable_ram,
)
from burla.transport.addresses import AddressError

LATE_S = 20
KEYED = f"burla://127.0.0.1:9?key={'ab' * 32}"
NOBODY = "ipc:///tmp/nobody"  # nothing listens there: the nodelet tries again and again


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_every_cgroup_around_a_process_counts_version_2(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "a/cpu.max": "max 100000",
            "a/b/cpu.max": "150000 100000",
            "cpu.max": "400000 100000",
            "a/memory.max": "1000",
            "a/b/memory.max": "max",
        },
    )
    assert list(cpu_quotas("0::/a/b\n", root)) == [1.5, 4.0]
    assert list(memory_limits("0::/a/b\n", root)) == [1000]


def test_every_cgroup_around_a_process_counts_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "2000",
        },
    )
    # as in a container: the path that memory has outside is not there inside
    memberships = "4:memory:/process/7\n2:cpu,cpuacct:/box\n1:name=systemd:/x\n"
    assert list(cpu_quotas(memberships, root)) == [0.5]
    assert list(memory_limits(memberships, root)) == [2000]


def test_without_cgroups_nothing_is_limited(tmp_path: Path) -> None:
    assert list(cpu_quotas("", tmp_path)) == []
    assert list(memory_limits("0::/\n", tmp_path)) == []


def test_what_this_machine_offers() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert 0 < usable_ram() <= psutil.virtual_memory().total
    assert host_name()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.slow
def test_affinity_counts() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from burla.nodelet.config import usable_cpus; print(usable_cpus())"
    )
    assert subprocess.check_output([sys.executable, "-c", script]).strip() == b"1"


def test_scratch_is_where_temporary_files_go() -> None:
    assert NodeletConfig(NOBODY, 1, GB, "n").scratch == tempfile.gettempdir()


@pytest.mark.parametrize(
    ("cpus", "ram", "name", "words"),
    [
        (0, 1, "n", "cpus=0: from 1 to 8192"),
        (1, 0, "n", "ram=0: more than 0"),
        (1, 1, "", "1 to 256 printable characters"),
        (1, 1, "a\nb", "1 to 256 printable characters"),
        (1, 1, "n" * 257, "1 to 256 printable characters"),
    ],
)
def test_a_setting_out_of_range_is_refused(cpus: int, ram: int, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        NodeletConfig(NOBODY, cpus, ram, name)


def test_a_malformed_address_is_no_setting() -> None:
    with pytest.raises(AddressError, match="'head:7270'"):
        NodeletConfig("head:7270", 1, 1, "n")


@contextlib.contextmanager
def nodelet(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "burla.nodelet", *arguments]
    with subprocess.Popen(
        line, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has been waited for


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--scheduler"),
        (("--scheduler", "head:7270"), "'head:7270' is not the address of a scheduler"),
        (("--scheduler", NOBODY, "--cpus", "0"), "cpus=0: from 1 to 8192"),
        (("--scheduler", NOBODY, "--cpus", "two"), "'two'"),
        (("--scheduler", NOBODY, "--ram", "nan"), "nan GB"),
        (("--scheduler", NOBODY, "--ram", "-1"), "-1.0 GB"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], words: str) -> None:
    with nodelet(*arguments) as process:
        out, err = process.communicate(timeout=LATE_S)
    assert (process.returncode, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("--scheduler", "head:7270"), "usage", 2),
        (("--cpus", "2"), "usage", 2),
        (("--scheduler", KEYED, "--key-file", "{key}"), "not_authorised", 77),
        (("--scheduler", KEYED, "--key-file", "/dev/null/k"), "bad_key_file", 78),
        (
            ("--scheduler", KEYED, "--key-file", "{key}", "--join-token-file", "/no"),
            "bad_key_file",
            78,
        ),
    ],
)
def test_with_json_an_error_is_json(
    words: tuple[str, ...], kind: str, code: int, tmp_path: Path
) -> None:
    with nodelet(*(word.format(key=tmp_path / "node.key") for word in words), "--json") as process:
        out, err = process.communicate(timeout=LATE_S)
    said = json.loads(out)["error"]
    assert (process.returncode, said["kind"], said["exit_code"]) == (code, kind, code)
    assert said["text"]
    assert said["remedy"]
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_all_its_processes_and_files(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with nodelet("--scheduler", NOBODY, "--cpus", "2", TMPDIR=str(tmp_path)) as process:
        known = psutil.Process(process.pid)
        children: list[psutil.Process] = []
        while not children:  # its zygote, perhaps its workers
            assert process.poll() is None
            children = known.children(recursive=True)
        process.send_signal(number)
        _, err = process.communicate(timeout=LATE_S)
        assert process.returncode == code, err
        wait_gone(children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_help_is_worth_reading() -> None:
    line = [sys.executable, "-m", "burla.nodelet", "--help"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    for word in ("--scheduler", "--cpus", "--ram", "--name", "2**30", "exit codes"):
        assert word in shown
    assert "--owner" not in shown
