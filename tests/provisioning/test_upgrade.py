"""`burla up` by a newer burla, in the middle of a job: nobody notices."""

from pathlib import Path

import pytest
from marked import marked
from newer import newer
from steady import SteadyJob
from users import User

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.mark.parametrize("bind", [[], ["--bind", "tcp://127.0.0.1:0"]], ids=["ipc", "tcp"])
def test_a_job_goes_on_and_no_call_is_lost_or_repeated(
    user: User, tmp_path: Path, bind: list[str]
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text("drain_s = 60\n[local]\nnodes = 2\ncpus = 2\n")
    with marked() as mark:
        address = user.said("up", str(file), *bind)["scheduler"]
        job = SteadyJob(user, address, mark, tmp_path)
        user.environment["PYTHONPATH"] = str(newer(tmp_path / "new"))
        said = user.said("up", "--cluster", "lab")
        assert (said["ready"], said["failed"]) == (2, 0), said
        assert said["scheduler"] == address
        job.end()
        folder = user.home / ".local/state/burla/lab"
        for name in ("scheduler", "local-1", "local-2"):
            assert (folder / f"{name}.sh").read_text().startswith("# burla 9.9.0\n")
        user.burla("down", "--cluster", "lab")
        assert mark.processes() == []
