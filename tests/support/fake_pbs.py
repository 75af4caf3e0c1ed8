"""A stand-in for PBS: its commands as scripts that run jobs as processes of this machine.

What they say and how they end is as OpenPBS' reference guide has it; a job is a session of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


COMMANDS = ("qsub", "qstat", "qselect", "qdel")
FOLDER = "FAKE_PBS"
FULL = "full"  # a file: nothing begins any more
KILL_S = 5.0  # from SIGTERM to SIGKILL
UNKNOWN = 153
WITH_VALUE = ("-N", "-l", "-q", "-j", "-o", "-v", "-A", "-u", "-F")


@contextmanager
def fake_pbs(folder: Path, patch: "pytest.MonkeyPatch") -> Iterator[Path]:
    """Have the commands on PATH; yield where jobs are written down; nothing runs afterwards."""
    (folder / "bin").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / "bin" / name
        line = f'exec {sys.executable} -S {Path(__file__).absolute()} {name} "$@"'
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
    patch.setenv(FOLDER, str(folder))
    patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    try:
        yield folder
    finally:
        for job in jobs(folder):
            end(job)


def jobs(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of all jobs, in their order."""
    files = sorted(folder.glob("*.job"), key=lambda path: int(path.stem))
    return [json.loads(file.read_text()) for file in files]


def state_of(job: dict[str, Any]) -> str:
    if not job["pid"]:
        return "F" if job["deleted"] else "Q"
    try:
        state = Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "F"
    return "F" if state in "ZX" else "R"


def end(job: dict[str, Any]) -> None:
    """End all processes of a job's session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until_s = time.monotonic() + KILL_S
        while (left := _session(job["pid"])) and time.monotonic() < until_s:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)


def _session(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat") if leader else ():
        with suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[3]) == leader and words[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


# --- the commands ---


def _parsed(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    options: dict[str, list[str]] = {}
    rest = []
    left = iter(words)
    for word in left:
        if word in WITH_VALUE:
            options.setdefault(word, []).append(next(left))
        elif word != "-f":
            rest.append(word)
    return options, rest


def _qsub(folder: Path, options: dict[str, list[str]], rest: list[str]) -> int:
    number = len(jobs(folder)) + 1
    variables = dict(part.split("=", 1) for part in options["-v"][0].split(","))
    job = {"id": f"{number}.fake", "name": options["-N"][0], "pid": 0, "deleted": False}
    job |= {"variables": variables, "asked": sys.argv[2:]}
    script = sys.stdin.read()
    if not (folder / FULL).exists():
        with open(options["-o"][0], "ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        job["pid"] = process.pid
    (folder / f"{number}.job").write_text(json.dumps(job))
    print(job["id"])
    return 0


def _qselect(folder: Path, options: dict[str, list[str]], rest: list[str]) -> int:
    for job in jobs(folder):
        if job["name"] == options["-N"][0] and state_of(job) != "F":
            print(job["id"])
    return 0


def _qstat(folder: Path, options: dict[str, list[str]], rest: list[str]) -> int:
    known = {job["id"]: job for job in jobs(folder) if state_of(job) != "F"}
    said = {}
    for name in rest:
        if name in known:
            job = known[name]
            said[name] = {"Job_Name": job["name"], "job_state": state_of(job)}
            said[name]["Variable_List"] = {"PBS_O_HOME": "/root"} | job["variables"]
            if not job["pid"]:
                said[name]["comment"] = "Not Running: Insufficient amount of resource: ncpus"
    print(json.dumps({"timestamp": 1, "pbs_version": "23.06.06", "Jobs": said}, indent=4))
    return 0 if len(said) == len(rest) else UNKNOWN


def _qdel(folder: Path, options: dict[str, list[str]], rest: list[str]) -> int:
    code = 0
    for name in rest:
        file = folder / f"{name.partition('.')[0]}.job"
        job = json.loads(file.read_text()) if file.exists() else None
        if job is None or state_of(job) == "F":
            print(f"qdel: Unknown Job Id {name}", file=sys.stderr)
            code = UNKNOWN
            continue
        file.write_text(json.dumps(job | {"deleted": True}))
        end(job)
    return code


if __name__ == "__main__":
    act = {"qsub": _qsub, "qselect": _qselect, "qstat": _qstat, "qdel": _qdel}[sys.argv[1]]
    sys.exit(act(Path(os.environ[FOLDER]), *_parsed(sys.argv[2:])))
