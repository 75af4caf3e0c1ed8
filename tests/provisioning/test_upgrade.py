"""`burla up` by a newer burla, in the middle of a job: nobody notices."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from marked import NAME as MARK, marked
from newer import newer
from users import User

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
CALLS = 60
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
        caller = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(calls=CALLS)],
            env={"HOME": str(user.home), "BURLA_CLUSTER": address, MARK: mark.word},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert caller.stdout is not None
        first = caller.stdout.readline()  # it runs
        user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
        said = user.said("up", "--cluster", "lab")
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert said["scheduler"] == address
        assert caller.poll() is None, "the job was to last longer"
        out, err = caller.communicate(timeout=60)
        lines = [f"called {i}" for i in range(CALLS)] + [f"sum {sum(i * i for i in range(CALLS))}"]
        assert Counter((first + out).splitlines()) == Counter(lines)
        assert err == ""
        folder = user.home / ".local/state/burla/lab"
        for name in ("scheduler", "local-1", "local-2"):
            assert (folder / f"{name}.sh").read_text().startswith("# burla 9.9.0\n")
        user.burla("down", "--cluster", "lab")
        assert mark.processes() == []
