"""Provisioner over PBS (OpenPBS, PBS Professional): each node is a job, as long as its walltime.

It is a provider as those of others are (docs/providers.md): [providers.pbs] are its settings. The
burla that runs here runs there too: the nodes of PBS share a file system. Drained is by a file
there, because qsig signals each process of a job, the calls as well.
"""

import getpass
import json
import shlex
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from burla.provisioning.core.machines import BadConfig, Machine, ProvisioningError, Shape
from burla.provisioning.slurm.batch import call, is_ready

# In the environment of a job, where qstat shows them: what it is of ours.
NAME, MANAGED_BY, LABELS, GROWN = "BURLA_NAME", "BURLA_CLUSTER_NAME", "BURLA_LABELS", "BURLA_GROWN"
NAME_CHARS_MAX = 15  # of a job, in older ones
STATES = {**dict.fromkeys("QHTW", "creating"), "R": "joining", **dict.fromkeys("FX", "ended")}
GONE = (0, 35, 153)  # some of the jobs have finished, or are not known any more
SCRIPT = """\
#!/bin/sh
{nodelet} &
child=$!
trap 'kill -TERM $child' TERM
end=$(($(date +%s) + {life_s}))
while kill -0 $child 2>/dev/null; do
    if [ -f {drain} ] || [ "$(date +%s)" -ge $end ]; then
        kill -USR1 $child
        rm -f {drain}
        end=9999999999
    fi
    sleep 1 &
    wait $!
done
wait $child
status=$?
rm -f {ready}
exit $status
"""


class Site(Protocol):
    """What is used of `providers.Site`."""

    @property
    def cluster(self) -> str:
        """Its name."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What [providers.pbs] says."""

    @property
    def directory(self) -> Path:
        """For files of ours, where the nodes see them."""

    @property
    def labels(self) -> Mapping[str, str]:
        """By which its machines are told from others."""

    def join_token(self, name: str) -> bytes | None:
        """Return a token for one node."""

    def nodelet(self, name: str, *options: str) -> list[str]:
        """Return the command of a node."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What [providers.pbs] may say besides what all providers have."""

    queue: str = ""
    walltime_min: int = 60
    cpus: int = 1  # per node
    gpus: int = 0  # per node
    drain_s: int = 60  # before the walltime ends a node takes no more work
    options: tuple[str, ...] = ()  # more of qsub, as "-A", "project"

    def __post_init__(self) -> None:
        """Complain of what is impossible."""
        if not (self.walltime_min >= 1 and self.cpus >= 1 and self.gpus >= 0):
            raise ValueError("walltime_min and cpus must be 1 or more, gpus 0 or more")
        if not 0 < self.drain_s < self.walltime_min * 60:
            raise ValueError("drain_s must be more than 0, and less than walltime_min")


class Pbs:
    """The jobs of one cluster; see `machines.Provisioner`."""

    def __init__(self, site: Site) -> None:
        """Manage the cluster of `site`.

        Raises:
            BadConfig: a setting is impossible.
        """
        self._site = site
        try:
            self._settings = msgspec.convert(dict(site.settings), Settings)
        except msgspec.ValidationError as error:
            raise BadConfig(f"providers.pbs: {error}") from None
        self._job_name = f"burla-{site.cluster}"[:NAME_CHARS_MAX]

    def observe(self) -> list[Machine]:
        """Return all jobs of the cluster that PBS knows as waiting or running."""
        ids = _call("qselect", "-u", getpass.getuser(), "-N", self._job_name).split()
        if not ids:
            return []
        text = _call("qstat", "-f", "-F", "json", *ids, fine=GONE)
        try:
            jobs: dict[str, Any] = json.loads(text).get("Jobs", {})
        except ValueError as error:
            raise ProvisioningError(f"qstat says what is not JSON: {error}") from None
        return [self._seen(job, said) for job, said in jobs.items() if self._is_ours(said)]

    def _is_ours(self, said: dict[str, Any]) -> bool:
        """Return whether a job is of this cluster: another's name may begin like it."""
        return bool(said.get("Variable_List", {}).get(MANAGED_BY) == self._site.cluster)

    def _seen(self, job: str, said: dict[str, Any]) -> Machine:
        variables = said["Variable_List"]
        name = str(variables.get(NAME, job))
        state = STATES.get(str(said.get("job_state")), "ending")
        if state == "joining" and is_ready(self._file(name, "ready")):
            state = "ready"
        comment = str(said.get("comment", ""))
        why = f"PBS says: {comment}" if state == "creating" and comment else ""
        is_grown = str(variables.get(GROWN)) == "1"
        labels = dict(
            part.split("=", 1) for part in str(variables.get(LABELS, "")).split("/") if part
        )
        return Machine(name, job, "pbs", state, why, grown=is_grown, labels=labels)

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        """Submit a job for each; see `machines.Provisioner`."""
        self._site.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        made: list[Machine] = []
        for _ in range(count):
            try:
                made.append(self._create_one(f"pbs-{uuid.uuid4().hex[:8]}", grown))
            except ProvisioningError:
                if not made:
                    raise
                break
        return made

    def _create_one(self, name: str, grown: bool) -> Machine:
        settings = self._settings
        chunk = f"select=1:ncpus={settings.cpus}"
        chunk += f":ngpus={settings.gpus}" if settings.gpus else ""
        hours, minutes = divmod(settings.walltime_min, 60)
        labels = "/".join(f"{key}={value}" for key, value in self._site.labels.items())
        variables = {NAME: name, MANAGED_BY: self._site.cluster, LABELS: labels}
        variables[GROWN] = "1" if grown else "0"
        line = ["-N", self._job_name, "-l", chunk, "-l", f"walltime={hours:02}:{minutes:02}:00"]
        line += ["-q", settings.queue] if settings.queue else []
        line += ["-j", "oe", "-o", str(self._file(name, "log"))]
        line += ["-v", ",".join(f"{key}={value}" for key, value in variables.items())]
        job = _call("qsub", *line, *settings.options, stdin=self._script(name)).strip()
        return Machine(name, job, "pbs", "creating", grown=grown)

    def _script(self, name: str) -> str:
        ready, settings = self._file(name, "ready"), self._settings
        options = ["--cpus", str(settings.cpus), "--ready-file", str(ready)]
        if (token := self._site.join_token(name)) is not None:
            file = self._file(name, "token")
            file.touch(mode=0o600)
            file.write_bytes(token)
            options += ["--join-token-file", str(file), "--key-file", str(self._file(name, "key"))]
        return SCRIPT.format(
            nodelet=shlex.join(self._site.nodelet(name, *options)),
            life_s=settings.walltime_min * 60 - settings.drain_s,
            drain=shlex.quote(str(self._file(name, "drain"))),
            ready=shlex.quote(str(ready)),
        )

    def _file(self, name: str, kind: str) -> Path:
        return self._site.directory / f"{name}.{kind}"

    def shape(self) -> Shape:
        """Return what a job gets; see `machines.Provisioner`."""
        return Shape(self._settings.cpus, gpus=self._settings.gpus)

    def price_per_h(self) -> float | None:
        """Return 0: who uses PBS does not pay by the hour; see `machines.Provisioner`."""
        return 0.0

    def drain(self, machine: Machine, wait_s: float) -> None:
        """Have the nodelet of a job finish what runs, and end; see `machines.Provisioner`."""
        self._file(machine.name, "drain").touch()

    def delete(self, machines: Sequence[Machine]) -> None:
        """Delete jobs; see `machines.Provisioner`."""
        if machines:
            _call("qdel", *(machine.address for machine in machines), fine=GONE)

    def clean(self) -> None:
        """Do nothing: all else is in the cluster's folder; see `machines.Provisioner`."""


def _call(*line: str, stdin: str = "", fine: tuple[int, ...] = (0,)) -> str:
    return call(list(line), "PBS", stdin, fine)
