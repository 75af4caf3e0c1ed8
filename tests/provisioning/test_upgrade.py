"""`burla up` by a newer burla, in the middle of a job: nobody notices."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from marked import NAME as MARK, marked
from newer import newer
from users import User
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
SCRIPT = """
import os, sys, time
from burla import remote_parallel_map

def f(i):
    time.sleep(0.4)
    print("called", i, flush=True)
    return i

def inputs():
    number = 0
    while not os.path.exists(sys.argv[1]):
        yield number
        number += 1

print("results", *sorted(remote_parallel_map(f, inputs(), generator=True)))
"""


@pytest.mark.parametrize("bind", [[], ["--bind", "tcp://127.0.0.1:0"]], ids=["ipc", "tcp"])
def test_a_job_goes_on_and_no_call_is_lost_or_repeated(
    user: User, tmp_path: Path, bind: list[str]
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("drain_s = 60\n[local]\nnodes = 2\ncpus = 2\n")
    with marked() as mark:
        address = user.said("up", str(file), *bind)["scheduler"]
        line = [sys.executable, "-u", "-c", SCRIPT, str(tmp_path / "stop")]
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            env = {"HOME": str(user.home), "BURLA_CLUSTER": address, MARK: mark.word}
            caller = subprocess.Popen(line, env=env, stdout=out, stderr=err)
        wait_until(lambda: (tmp_path / "out").stat().st_size > 0, "it runs")
        user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
        said = user.said("up", "--cluster", "lab")
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert said["scheduler"] == address
        (tmp_path / "stop").touch()
        assert caller.wait(60) == 0
        *lines, results = (tmp_path / "out").read_text().splitlines()
        numbers = results.split()[1:]
        assert numbers == [str(number) for number in range(len(numbers))]
        assert Counter(lines) == Counter(f"called {number}" for number in numbers)
        assert (tmp_path / "err").read_text() == ""
        folder = user.home / ".local/state/burla/lab"
        for name in ("scheduler", "local-1", "local-2"):
            assert (folder / f"{name}.sh").read_text().startswith("# burla 9.9.0\n")
        user.burla("down", "--cluster", "lab")
        assert mark.processes() == []
