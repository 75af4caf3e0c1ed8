"""A real Slurm on loopback: munged, slurmctld and several slurmd of one machine, from Debian."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from waiting import wait_gone, wait_until

CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
{nodes}
PartitionName=all Nodes=n[1-{count}] Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def slurm_site(count: int) -> Iterator[Path]:
    """Run Slurm with `count` nodes of two CPUs; SLURM_CONF names it meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    for name in ("state", *(f"spool.n{n}" for n in range(1, count + 1))):
        (folder / name).mkdir()
    lines = [
        f"NodeName=n{n} NodeHostname=localhost NodeAddr=127.0.0.1 Port={_free_port()} CPUs=2"
        for n in range(1, count + 1)
    ]
    conf = CONF.format(folder=folder, port=_free_port(), nodes="\n".join(lines), count=count)
    (folder / "slurm.conf").write_text(conf)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*line: str) -> None:
        with (folder / f"{line[0]}.out").open("ab") as out:
            daemons.append(subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    try:
        places = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *places)
        wait_until((folder / "munge.socket").exists, "munged listens")
        start("slurmctld", "-D")
        for n in range(1, count + 1):
            start("slurmd", "-D", "-N", f"n{n}")
        wait_until(lambda: _idle() == count, f"{count} nodes are idle", 60.0)
        yield folder
    finally:
        left = [p for d in daemons for p in _family(d.pid)]
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_gone(left)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder)


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _idle() -> int:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format", "%T"], capture_output=True, text=True
    )
    return done.stdout.split().count("idle")
