"""Real workers: how their zygote bears harsh surroundings, and its own and the agent's end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from machine import gone, is_alive, machine, poll, run, slow_to_load

pytestmark = pytest.mark.slow


AGENT = """
import asyncio, os, signal, sys, pathlib
sys.path.insert(0, {support!r})
from machine import leaves_of, machine

def call(path):
    import os, subprocess, time
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open(path, "w") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}")
    os.rename(path, path + ".done")
    time.sleep(600)

async def main():
    async with machine(2, pathlib.Path({scratch!r})) as m:
        (worker,) = await m.lease(call, 1)
        m.assign(worker, 0, 1, leaves_of([{path!r}]))
        while not os.path.exists({path!r} + ".done"):
            await asyncio.sleep(0.01)
        {act}
        await m.until(lambda: m.zygote_is_dead)
        assert m.deaths, m.told
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(m.workers._zygote._process.pid, signal.SIGKILL)", 0),
        ("os.kill(m.workers._zygote._process.pid, signal.SIGTERM)", 0),
    ],
)
def test_nothing_outlives_agent_or_zygote(tmp_path: Path, act: str, status: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    support = str(Path(__file__).parents[2] / "support")
    path = str(tmp_path / "pids")
    program = AGENT.format(support=support, scratch=str(scratch), path=path, act=act)
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=50)
    assert done.returncode == status
    for pid in map(int, Path(path + ".done").read_text().split()):
        run(gone(pid))
    if "zygote" not in act:
        run(poll(lambda: not scratch.exists()))


HARSH = """
import asyncio, os, resource, signal, sys
sys.path.insert(0, {support!r})
{act}
from machine import machine

async def main():
    async with machine(2) as m:
        got = await m.run(lambda x: x * 2, list(range(1000)), 32)
        if got != [x * 2 for x in range(1000)]:
            os._exit(5)
        os.write({report}, b"done")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("options", "act"),
    [
        (["-OO"], ""),
        ([], "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))"),
        ([], "os.environ.clear()"),
        ([], "[os.close(fd) for fd in (0, 1, 2)]"),
        ([], "import tempfile; os.chdir(d := tempfile.mkdtemp()); os.rmdir(d)"),
        ([], "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"),
        ([], "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"),
    ],
    ids=["OO", "128 descriptors", "no environment", "closed", "no directory", "blocked", "ignored"],
)
def test_harsh_surroundings_do_no_harm(options: list[str], act: str) -> None:
    support = str(Path(__file__).parents[2] / "support")
    reader, report = os.pipe()
    program = HARSH.format(support=support, act=act, report=report)
    done = subprocess.run(
        [sys.executable, *options, "-c", program], check=False, pass_fds=[report], timeout=50
    )
    os.close(report)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"done"
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["random", "worker", "socket", "burla"])
def test_modules_of_that_name_in_the_working_directory_do_no_harm(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with machine(1) as m:
            assert await m.run(lambda x: x, [1], 1) == [1]

    run(main())


def test_nothing_is_left_open() -> None:
    async def main() -> None:
        async with machine(2) as m:
            await m.run(lambda x: x, range(100), 3)
            m.outcomes.clear()
            await m.run(slow_to_load(lambda x: x), range(100), 3)

    run(main())
    before = os.listdir("/proc/self/fd")
    others = psutil.Process().children()  # of tests before this one
    run(main())
    assert os.listdir("/proc/self/fd") == before
    left = [child for child in psutil.Process().children() if child not in others]
    assert not [child for child in left if is_alive(child.pid)]
