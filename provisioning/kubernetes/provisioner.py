"""Provisioner over Kubernetes: each node is the pod of a Job of its own.

Three things end a pod, each of which works alone: we delete it; Kubernetes ends it at its deadline;
it ends by itself when its scheduler is silent (pod.sh). A Job that has ended is removed by
Kubernetes, with its pod, its Secret and, after the last one, the ConfigMap. Every list and every
delete goes by our labels; nothing without them is touched.

Lists and no watches: a look every few seconds is what asks, and finds all that a watch could have
missed. lightkube blocks, so none of this runs on the scheduler's loop.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Pod, Secret
from lightkube.types import CascadeType

from burla.provisioning.config import ClusterConfig
from burla.provisioning.core.capacity import MISSING
from burla.provisioning.core.machines import (
    BadConfig,
    JoinToken,
    Machine,
    ProvisioningError,
    Shape,
    printable,
)
from burla.provisioning.core.plan import CLUSTER, MANAGED
from burla.provisioning.install import bootstrap
from burla.provisioning.install.wheels import pinned_for_node, xz_for_node
from burla.provisioning.provider_settings import kubernetes_name
from burla.scheduler.core.admission import TOKEN_S

from . import manifest
from .api import FORBIDDEN, KubeApi, Refused
from .manifest import GB, GROWN, HEAD, NODE, Owner
from .phases import GONE_S, REFUSED, is_passing, phase_of

SCRIPT = Path(__file__).with_name("pod.sh")
PARALLEL_MAX = 8  # calls at once
SETTLE_S = 10.0  # until each new Job has its pod, or Kubernetes has said why not
ENDING_S = 60.0  # until a namespace that was deleted is gone
POLL_S = 0.25
NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
PRICE = "kubernetes"  # in grow.prices: of one pod
WHY_MAX = 400  # characters


class Kubernetes:
    """The pods of one cluster; see `machines.Provisioner`."""

    def __init__(
        self,
        config: ClusterConfig,
        scheduler: str,
        join_token: JoinToken,
        say: Callable[[str], None] = lambda text: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Manage the cluster that `config` names.

        Args:
            config: of the cluster.
            scheduler: its address, as the pods reach it.
            join_token: yields a fresh token for each pod.
            say: is told each refusal.
            pause: waits between tries.
        """
        self.config, self.kubernetes = config, config.kubernetes
        self._join_token, self._say, self._pause = join_token, say, pause
        self._owner = Owner(config, scheduler)
        self._namespace = self._owner.namespace
        self._api = KubeApi(self.kubernetes, self._namespace, pause)
        labels = manifest.labels(self._owner)
        self._ours = {name: labels[name] for name in (MANAGED, CLUSTER, HEAD)}

    # --- observe ---

    def observe(self) -> list[Machine]:
        """Return all Jobs of the cluster, with what Kubernetes says of their pods."""
        listed = filter(self._is_ours, self._api.list(Job, self._ours))
        jobs = {job.metadata.name: job for job in listed}
        pods = self._pods()
        refusals = self._refusals() if jobs.keys() - pods.keys() else {}
        found = [self._machine(job, pods.get(n), refusals.get(n, [])) for n, job in jobs.items()]
        # of a Job that is deleted the pod may take its time
        return found + [self._ending(n, pod) for n, pod in pods.items() if n not in jobs]

    def _is_ours(self, found: Any) -> bool:
        """Return whether something has our labels; a list that ignores them must not kill."""
        labels = found.metadata.labels or {}
        return all(labels.get(name) == value for name, value in self._ours.items())

    def _refusals(self) -> dict[str, list[str]]:
        """Return why pods of Jobs are not let in, by Job."""
        fields = {"involvedObject.kind": "Job", "reason": REFUSED}
        found: dict[str, list[str]] = {}
        try:
            events = self._api.list(Event, {}, fields)
        except Refused as refused:
            if refused.answer.status != FORBIDDEN:
                raise
            events = []  # then people hear of it at the end of boot_s
        for event in events:
            if event.reason == REFUSED:
                why = printable(event.message or "")[:WHY_MAX]
                found.setdefault(event.involvedObject.name or "", []).append(why)
        return found

    def _machine(self, job: Any, pod: Any | None, refusals: Sequence[str]) -> Machine:
        state, why = phase_of(job, pod, refusals)
        labels = dict(job.metadata.labels or {})
        made = job.metadata.creationTimestamp
        deadline_s = job.spec.activeDeadlineSeconds
        return Machine(
            name=job.metadata.name,
            address=f"{self._namespace}/{pod.metadata.name if pod else job.metadata.name}",
            provider="kubernetes",
            state=state,
            why=printable(why)[:WHY_MAX],
            says_so=state in ("ready", "joining"),  # its probe looks at a file of the nodelet
            expires_s=made.timestamp() + deadline_s if made and deadline_s else None,
            grown=labels.get(GROWN) == "true",
            cost_per_h=self.price_per_h() or 0.0,
            labels=labels,
        )

    def _ending(self, name: str, pod: Any) -> Machine:
        labels = dict(pod.metadata.labels)
        address = f"{self._namespace}/{pod.metadata.name}"
        return Machine(name, address, "kubernetes", "ending", labels=labels)

    # --- what the next one is ---

    def shape(self) -> Shape:
        """Return what a pod gets; see `machines.Provisioner`."""
        kubernetes = self.kubernetes
        return Shape(kubernetes.cpus, int(kubernetes.ram_gb * GB), kubernetes.gpus)

    def price_per_h(self) -> float | None:
        """Return what a pod costs, 0 if nobody says; see `machines.Provisioner`."""
        return self.config.grow.prices.get(PRICE, 0.0)

    # --- create ---

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        """Make Jobs, and all that their pods need; see `machines.Provisioner`."""
        tokens = self._tokens(count)
        self._make_namespace()
        prefix = f"burla-{kubernetes_name(self.config.name, 30)}-"
        files = f"{prefix}files-{uuid.uuid4().hex[:8]}"
        of_names = [f"{prefix}{uuid.uuid4().hex[:8]}" for _ in tokens]

        def one(name: str, token: bytes | None) -> Any:
            try:
                self._pause(0.0)  # the autoscaler's process may end here
                return self._create_one(name, files, token, grown)
            except ProvisioningError as error:
                return error

        try:
            with ThreadPoolExecutor(PARALLEL_MAX) as pool:
                made = list(pool.map(one, of_names, tokens))
            jobs = [job for job in made if not isinstance(job, ProvisioningError)]
            errors = [error for error in made if isinstance(error, ProvisioningError)]
            if jobs:
                self._create_files(files, jobs)
                jobs = self._let_in(jobs, errors)
        except BaseException:  # Ctrl-C, too
            for name in of_names:
                self._give_up(name)
            raise
        for text in dict.fromkeys(map(str, errors)):
            self._say(text)
        if errors and not jobs:
            raise errors[0]
        names = [job.metadata.name for job in jobs]
        where = self._namespace
        return [
            Machine(name, f"{where}/{name}", "kubernetes", "creating", grown=grown)
            for name in names
        ]

    def _tokens(self, count: int) -> list[bytes | None]:
        first = self._join_token(self.config.name)
        if first is not None and self.kubernetes.boot_s > TOKEN_S:
            raise BadConfig(
                f"kubernetes.boot_s is {self.kubernetes.boot_s:.0f}: it must be at most"
                f" {TOKEN_S:.0f}, because a join token expires after that time"
            )
        return [first, *(self._join_token(self.config.name) for _ in range(count - 1))]

    def _make_namespace(self) -> None:
        """Make the cluster's own namespace, unless it is there or users have named one."""
        if self.kubernetes.namespace:
            return
        waited_s = 0.0
        metadata = {"name": self._namespace, "labels": manifest.labels(self._owner)}
        while True:
            try:
                found = self._api.create(Namespace.from_dict({"metadata": metadata}))
            except Refused as refused:
                if refused.answer.status == FORBIDDEN:
                    raise BadConfig(
                        f"cannot make the namespace {self._namespace} ({refused}): set"
                        " kubernetes.namespace (--namespace) to one that you may use"
                    ) from refused
                raise
            if (found.status and found.status.phase) != "Terminating" or waited_s >= ENDING_S:
                return
            self._pause(POLL_S)  # `burla down` has just deleted it
            waited_s += POLL_S

    def _create_one(self, name: str, files: str, token: bytes | None, grown: bool) -> Any:
        """Make one Job and its Secret; if that fails, nothing is left of either."""
        told = manifest.job(self._owner, name, files, grown=grown)
        try:
            job = self._api.create(Job.from_dict(told))
            owner = manifest.reference(name, job.metadata.uid)
            secret = manifest.token(self._owner, name, owner, token)
            self._api.create(Secret.from_dict(secret))
        except Refused as refused:
            self._give_up(name)
            if refused.answer.status == MISSING:
                raise BadConfig(
                    f"there is no namespace {self._namespace}: `kubectl create namespace"
                    f" {self._namespace}` makes it"
                ) from refused
            raise
        except BaseException:
            self._give_up(name)
            raise
        return job

    def _give_up(self, name: str) -> None:
        """Delete a Job that may be there, whatever was answered."""
        with suppress(Exception):  # if not even that can be done, its deadline ends it
            self._delete_one(name)

    def _create_files(self, name: str, jobs: Sequence[Any]) -> None:
        owners = [manifest.reference(job.metadata.name, job.metadata.uid) for job in jobs]
        files = {
            "bootstrap.sh": bootstrap.script(),
            "pod.sh": SCRIPT.read_bytes(),
            "wheel.xz": xz_for_node(),  # a ConfigMap takes 1 MiB
            "requirements.txt": self._requirements().encode(),
            "packages.txt": "".join(f"{one}\n" for one in self.config.node.given()).encode(),
        }
        made = manifest.files_of(self._owner, name, owners, files)
        self._api.create(ConfigMap.from_dict(made))

    def _requirements(self) -> str:
        """Return what may be installed from an index; a wheelhouse is as good as its image."""
        if self.kubernetes.wheelhouse:
            return ""
        return pinned_for_node(self.config.python, self.config.index).text

    def _let_in(self, jobs: list[Any], errors: list[ProvisioningError]) -> list[Any]:
        """Return the Jobs whose pods Kubernetes has let in; others are deleted, and told."""
        names = {job.metadata.name for job in jobs}
        refused: dict[str, list[str]] = {}
        waited_s = 0.0
        while waited_s < SETTLE_S:
            missing = names - self._pods().keys()
            refused = self._refusals() if missing else {}
            if all(_is_final(refused.get(name, ())) for name in missing):
                break
            self._pause(POLL_S)
            waited_s += POLL_S
        for name in sorted(missing & refused.keys()):
            self._delete_one(name)
            errors.append(ProvisioningError(f"Kubernetes lets in no pod: {refused[name][-1]}"))
        return [job for job in jobs if job.metadata.name not in missing & refused.keys()]

    # --- drain and delete ---

    def drain(self, machine: Machine, wait_s: float) -> None:
        """Have a pod end when its calls have ended; see `machines.Provisioner`.

        Calls that last longer than `wait_s` go on: how long the pod may take is bounded by its
        deadline, and made shorter by whoever deletes it. Kubernetes itself would not end at the
        deadline what is deleted already.
        """
        longest_s = self.kubernetes.run_h * 3600
        left_s = longest_s if machine.expires_s is None else machine.expires_s - time.time()
        grace_s = max(GONE_S + 1, int(min(left_s, longest_s)))  # `phase_of` tells them by it
        if pod := self._pods().get(machine.name):
            self._api.delete(Pod, pod.metadata.name, grace_period=grace_s)

    def delete(self, machines: Sequence[Machine]) -> None:
        """Delete Jobs and pods; see `machines.Provisioner`."""
        if not machines:
            return

        def one(machine: Machine) -> ProvisioningError | None:
            try:
                self._delete_one(machine.name)
            except ProvisioningError as error:  # the others go all the same
                return ProvisioningError(f"cannot delete {machine.name}: {error}")
            return None

        with ThreadPoolExecutor(PARALLEL_MAX) as pool:
            errors = [error for error in pool.map(one, machines) if error is not None]
        if errors:
            raise errors[0]

    def _delete_one(self, name: str) -> None:
        # First the Job, which then makes no other pod, and with it in the background all that it
        # owns; the pod, for which that would take as long as its calls do, by ourselves.
        self._api.delete(Job, name, cascade=CascadeType.BACKGROUND)
        if pod := self._pods({NODE: name}).get(name):
            self._api.delete(Pod, pod.metadata.name, grace_period=GONE_S)

    def _pods(self, labels: Mapping[str, str] = NOTHING_MORE) -> dict[str, Any]:
        """Return our pods that have these labels as well, by the names of their Jobs."""
        pods = self._api.list(Pod, self._ours | dict(labels))
        return {pod.metadata.labels.get(NODE, ""): pod for pod in filter(self._is_ours, pods)}

    def clean(self) -> None:
        """Delete what a command that was killed may have left, and our own namespace."""
        for kind in (Secret, ConfigMap):
            for left in filter(self._is_ours, self._api.list(kind, self._ours)):
                self._api.delete(kind, left.metadata.name)
        if self.kubernetes.namespace:
            return
        with suppress(Refused):  # of a namespace that others made nothing need be known
            if self._is_ours(self._api.get(Namespace, self._namespace)):
                self._api.delete(Namespace, self._namespace)


def _is_final(refusals: Sequence[str]) -> bool:
    return not all(map(is_passing, refusals))
