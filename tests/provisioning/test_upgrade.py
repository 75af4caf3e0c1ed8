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
CALLS = 100
SCRIPT = """
import time
from burla import remote_parallel_map

def f(i):
    time.sleep(0.4)
    print("called", i, flush=True)
    return i * i

print("sum", sum(remote_parallel_map(f, range({calls}))))
"""


@pytest.mark.parametrize("bind", [[], ["--bind", "tcp://127.0.0.1:0"]], ids=["ipc", "tcp"])
def test_a_job_goes_on_and_no_call_is_lost_or_repeated(
    user: User, tmp_path: Path, bind: list[str]
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("drain_s = 60\n[local]\nnodes = 2\ncpus = 2\n")
    with marked() as mark:
        address = user.said("up", str(file), *bind)["scheduler"]
        line = [sys.executable, "-u", "-c", SCRIPT.format(calls=CALLS)]
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            env = {"HOME": str(user.home), "BURLA_CLUSTER": address, MARK: mark.word}
            caller = subprocess.Popen(line, env=env, stdout=out, stderr=err)
        wait_until(lambda: (tmp_path / "out").stat().st_size > 0, "it runs")
        user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
        said = user.said("up", "--cluster", "lab")
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert said["scheduler"] == address
        assert caller.poll() is None, "the job was to last longer"
        assert caller.wait(60) == 0
        lines = [f"called {i}" for i in range(CALLS)] + [f"sum {sum(i * i for i in range(CALLS))}"]
        assert Counter((tmp_path / "out").read_text().splitlines()) == Counter(lines)
        assert (tmp_path / "err").read_text() == ""
        folder = user.home / ".local/state/burla/lab"
        for name in ("scheduler", "local-1", "local-2"):
            assert (folder / f"{name}.sh").read_text().startswith("# burla 9.9.0\n")
        user.burla("down", "--cluster", "lab")
        assert mark.processes() == []
