"""Detached jobs: callers go, schedulers are killed, and the results are whole."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Thread
from zlib import crc32

import pytest
from clusters import Cluster, run_script
from waiting import wait_until

import burla
from burla import remote_parallel_map as rpm
from burla.transport.addresses import take_apart

pytestmark = pytest.mark.slow


def restart_scheduler(made: Cluster) -> None:
    """Kill the scheduler and start another one at the same address."""
    made.scheduler.kill()
    made.scheduler.wait()
    endpoint = take_apart(made.address).endpoint
    line = [sys.executable, "-m", "burla.scheduler", "--bind", endpoint]
    made.scheduler = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert made.scheduler.stdout is not None
    with made.scheduler.stdout as out:
        assert out.readline().strip() == made.address


def test_a_caller_goes_and_its_results_and_output_are_found_by_another_process(
    shared: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("FACTOR = 3\n")
    done = run_script(
        "import os, burla, mine\n"
        "def f(x):\n"
        "    print('call', x)\n"
        "    return x * mine.FACTOR\n"
        "job = burla.remote_parallel_map(f, range(5), detach=True)\n"
        "print(job.id, flush=True)\n"
        "os._exit(0)\n",
        tmp_path,
    )
    job = burla.attach(done.stdout.strip())
    assert job.results() == [0, 3, 6, 9, 12]
    words = sorted(capfd.readouterr().out.split())
    assert words == [*"01234", *["call"] * 5]
    assert sorted(job.results(generator=True, with_index=True, output=False))[4] == (4, 12)
    status = job.status()
    assert (status.state, status.inputs, status.done, status.failed) == ("done", 5, 5, 0)
    assert status.kept_until is not None
    assert (status.kept_until - status.made).days == 7
    assert capfd.readouterr().out == ""
    job.delete()
    with pytest.raises(burla.JobNotFound):
        job.status()


def test_a_scheduler_is_killed_again_and_again_and_no_call_is_run_twice(
    shared: Cluster, tmp_path: Path
) -> None:
    ballast = bytes(range(256)) * 2000  # is sent as a blob

    def f(x: int) -> tuple[int, int, bytes]:
        import time

        with open(tmp_path / "log", "ab", buffering=0) as log:
            log.write(b"%d\n" % x)
        time.sleep(0.02)
        return x, ballast[x], bytes(2 << 20) if x == 60 else b""

    job = rpm(f, range(120), detach=True)
    for least in (10, 50):
        wait_until(lambda least=least: job.status().done >= least, "some are done")  # type: ignore[misc]
        restart_scheduler(shared)
    expected = [(x, x, bytes(2 << 20) if x == 60 else b"") for x in range(120)]
    assert job.results() == expected
    ran = Counter(map(int, (tmp_path / "log").read_text().split()))
    assert ran == Counter(range(120))


def test_a_big_input_goes_on_where_it_was_when_the_scheduler_is_killed_amid_it(
    shared: Cluster,
) -> None:
    store = shared.directory / "s.store" / "jobs"
    before = set(store.glob("*"))
    made: list[burla.Job] = []
    data = bytes(range(256)) * (160 << 10)  # 40 MiB
    sender = Thread(target=lambda: made.append(rpm(crc32, [data, data[1:]], detach=True)))
    sender.start()

    def stored() -> int:
        new = [path for job in set(store.glob("*")) - before for path in job.glob("inputs-*.log")]
        return sum(path.stat().st_size for path in new)

    wait_until(lambda: stored() > 4 << 20, "some of it is on the disk")
    restart_scheduler(shared)
    sender.join(50)
    assert made[0].results() == [crc32(data), crc32(data[1:])]
    status = made[0].status()
    assert 2 * len(data) < status.size < 2.2 * len(data), "more than what was under way came twice"
    made[0].delete()


PAGE = Path(__file__).parents[2] / "docs" / "detached.md"


def test_the_page_about_detached_jobs_works(shared: Cluster, tmp_path: Path) -> None:
    start, look = (
        part.split("```")[0] for part in PAGE.read_text("utf-8").split("```python\n")[1:]
    )
    job = run_script(start, tmp_path).stdout.strip()
    looked = run_script(look.replace("0e9f5c...", job), tmp_path)
    assert (looked.stdout, looked.stderr) == ("100\n328350\n0 0\n", "")


def test_errors_are_raised_or_are_outcomes_as_they_are_of_other_jobs(shared: Cluster) -> None:
    def f(x: int) -> int:
        if x == 1:
            raise ValueError("one")
        return x

    with pytest.raises(ValueError, match="one") as raised:
        rpm(f, range(3), detach=True).results()
    assert raised.value.burla_input_index == 1  # type: ignore[attr-defined]
    first, second, third = rpm(f, iter(range(3)), detach=True, return_exceptions=True).results()
    assert (first, str(second), third) == (0, "one", 2)
    empty = rpm(f, [], detach=True)
    assert empty.wait(10)
    assert empty.results() == []


def test_a_job_is_cancelled(shared: Cluster) -> None:
    job = rpm(lambda x: __import__("time").sleep(60), range(3), detach=True)
    assert not job.wait(0.1)
    job.cancel()
    assert job.wait(10)
    assert job.status().state == "cancelled"
    with pytest.raises(burla.JobFailed, match="it was cancelled"):
        job.results()


def test_a_private_cluster_refuses_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CONFIG_DIR", "/nowhere")
    monkeypatch.delenv("BURLA_CLUSTER", raising=False)
    with pytest.raises(burla.BadSetting, match="a private cluster ends with this process"):
        rpm(len, ["a"], detach=True)
    with pytest.raises(burla.BadSetting, match="a private cluster ends with this process"):
        burla.attach("00" * 16)
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        burla.attach("no")


def test_results_of_classes_of_the_script_are_read_by_its_next_run(
    shared: Cluster, tmp_path: Path
) -> None:
    head = "import os, burla\nclass Found:\n    def __init__(self, x):\n        self.x = x\n"
    detach = (
        "print(burla.remote_parallel_map(Found, range(3), detach=True).id, flush=True)\n"
        "os._exit(0)\n"
    )
    job = run_script(head + detach, tmp_path).stdout.strip()
    read = (
        f"job = burla.attach('{job}')\n"
        "print([(type(one) is Found, one.x) for one in job.results()])\n"
        "job.delete()\n"
    )
    done = run_script(head + read, tmp_path)
    assert done.stdout == f"{[(True, x) for x in range(3)]}\n", done.stderr
