"""Provisioner over Slurm: each node is a task of a job array, for as long as its walltime lasts.

The burla that runs here runs there too: Slurm's nodes share a file system. A node is warned before
its walltime ends and drains; whoever submits needs no more than sbatch, squeue and scancel.
"""

import getpass
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from burla.provisioning.config import ClusterConfig, log_options, package_options
from burla.provisioning.core.machines import BadConfig, JoinToken, Machine, Shape
from burla.provisioning.core.plan import CLUSTER, MADE_BY, MANAGED
from burla.scheduler.core.admission import TOKEN_S
from burla.system.launch import command

from .batch import call, is_ready

COMMENT = "burla "  # begins those of tasks; what follows says which burla has made them
GROWN = "+grown"  # ends the name of what was made for a job; no cluster has such a name
STATES = {
    "PENDING": "creating",
    "CONFIGURING": "creating",
    "RUNNING": "joining",
}
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
ENDED |= {"OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}  # what is not named here may yet go on
# Slurm's warning comes to the batch shell, which is the parent of the nodelet; a signal ends a wait
# before the child has ended, so it waits again.
SCRIPT = """\
#!/bin/sh
name=slurm-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID
ready={directory}/$name.ready
{keys}
{nodelet} --name "$name" --ready-file "$ready" --cpus "$SLURM_CPUS_PER_TASK" "$@" &
child=$!
trap 'kill -USR1 $child' USR1
trap 'kill -TERM $child' TERM
status=255
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
rm -f "$ready"
exit $status
"""


# A task has a token of its own, and a key by which it comes back if Slurm starts it again.
KEYS = """\
set -- --key-file {directory}/$name.key
token={tokens}/$SLURM_ARRAY_TASK_ID
[ ! -f "$token" ] || set -- "$@" --join-token-file "$token"
"""


class Slurm:
    """The jobs of one cluster; see `machines.Provisioner`."""

    def __init__(
        self, config: ClusterConfig, directory: Path, scheduler: str, join_token: JoinToken
    ) -> None:
        """Manage the cluster that `config` names.

        Args:
            config: of the cluster.
            directory: on the file system that all nodes share; for logs and ready files.
            scheduler: its address, as the nodes reach it.
            join_token: yields a fresh token for each node.
        """
        self.config, self.directory = config, directory
        self._scheduler, self._join_token = scheduler, join_token
        self._name = f"burla-{config.name}"

    def observe(self) -> list[Machine]:
        """Return all tasks that Slurm knows as waiting or running."""
        line = ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
        line += ["--name", f"{self._name},{self._name}{GROWN}", "--format", "%F|%K|%T|%j|%k|%r"]
        machines = []
        for row in _call(line).splitlines():
            job, task, state, of, comment, reason = row.strip().split("|", 5)
            made = Machine(
                f"slurm-{job}-{task}", f"{job}_{task}", "slurm", grown=of.endswith(GROWN)
            )
            labels = {MANAGED: "true", CLUSTER: self.config.name, MADE_BY: self._made_by(comment)}
            machines.append(self._seen(replace(made, labels=labels), state, reason))
        return machines

    def _made_by(self, comment: str) -> str:
        """Return which burla has made a task; one whose user has other comments is ours."""
        if comment.startswith(COMMENT):
            return comment.removeprefix(COMMENT)
        return "" if comment in ("", "(null)") else self.config.stamp

    def _seen(self, machine: Machine, state: str, reason: str) -> Machine:
        phase = "ended" if state in ENDED else STATES.get(state, "ending")
        if phase == "joining" and is_ready(self.directory / f"{machine.name}.ready"):
            phase = "ready"
        why = f"Slurm says: {reason}" if phase == "creating" and reason != "None" else ""
        if phase == "ending" and state != "COMPLETING":
            why = f"Slurm says: {state}"
        return replace(machine, state=phase, why=why)

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        """Submit one array; see `machines.Provisioner`."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        slurm = self.config.slurm
        job_name = f"{self._name}{GROWN}" if grown else self._name
        line = ["sbatch", "--parsable", f"--job-name={job_name}", f"--array=1-{count}"]
        line += [f"--comment={COMMENT}{self.config.stamp}"]
        line += [f"--time={slurm.walltime_min}", f"--cpus-per-task={slurm.cpus}", "--nodes=1"]
        line += [f"--gres=gpu:{slurm.gpus}"] if slurm.gpus else []
        line += [f"--signal=B:USR1@{slurm.drain_s}", f"--output={self.directory}/%A_%a.log"]
        line += [f"--partition={slurm.partition}"] if slurm.partition else []
        job = _call([*line, *slurm.options], self._script(count)).strip().split(";")[0]
        numbers = range(1, count + 1)
        return [
            Machine(f"slurm-{job}-{n}", f"{job}_{n}", "slurm", "creating", grown=grown)
            for n in numbers
        ]

    def _script(self, count: int) -> str:
        nodelet = command("burla.nodelet.cli", "--scheduler", self._scheduler)
        nodelet += log_options(self.config)
        nodelet += package_options(self.config, self.directory.parent)
        folder = shlex.quote(str(self.directory))
        keys = ""
        if (tokens := self._tokens(count)) is not None:
            keys = KEYS.format(directory=folder, tokens=shlex.quote(str(tokens)))
        return SCRIPT.format(directory=folder, nodelet=shlex.join(nodelet), keys=keys)

    def _tokens(self, count: int) -> Path | None:
        """Return a new folder with a token for each task, by number; None: none is needed."""
        first = self._join_token(self._name)
        if first is None:
            return None
        if self.config.slurm.wait_s > TOKEN_S:
            raise BadConfig(
                f"slurm.wait_s is {self.config.slurm.wait_s:.0f}: it must be at most {TOKEN_S:.0f},"
                " because a join token expires after that time"
            )
        folder = Path(tempfile.mkdtemp(prefix="tokens-", dir=self.directory))
        for number in range(1, count + 1):
            token = first if number == 1 else self._join_token(self._name)
            path = folder / str(number)
            path.touch(mode=0o600)
            path.write_bytes(token or b"")
        return folder

    def shape(self) -> Shape:
        """Return what a task gets; see `machines.Provisioner`."""
        return Shape(self.config.slurm.cpus, gpus=self.config.slurm.gpus)

    def price_per_h(self) -> float | None:
        """Return 0: who uses Slurm does not pay by the hour; see `machines.Provisioner`."""
        return 0.0

    def drain(self, machine: Machine, wait_s: float) -> None:
        """Have the nodelet of a task finish what runs, and end; see `machines.Provisioner`."""
        _call(["scancel", "--batch", "--signal=USR1", machine.address])

    def delete(self, machines: Sequence[Machine]) -> None:
        """Cancel tasks; see `machines.Provisioner`."""
        if machines:
            _call(["scancel", "--quiet", *(machine.address for machine in machines)])

    def clean(self) -> None:
        """Do nothing: all else is in the cluster's folder; see `machines.Provisioner`."""


def _call(line: list[str], stdin: str = "") -> str:
    return call(line, "Slurm", stdin)
