"""The settings of those who make machines, one table of a cluster's file each; see config.py."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from burla.provisioning.core.machines import BadConfig

GPUS_MAX = 16  # of one machine: the most that any machine type takes
RUN_H_MAX = 120 * 24  # Compute Engine's longest max_run_duration
DISK_GB_MAX = 65_536  # Compute Engine's largest disk
CPUS_MAX = 8192  # of a nodelet
NODES_MAX = 1000  # of one kind; a typing error should not become a bill
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
TOLERATION = re.compile(r"(?P<key>[^=:\s]*)(=(?P<value>[^=:\s]*))?(:(?P<effect>\w+))?")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
IN_CLUSTER = "in-cluster"  # for a context: the service account of the pod that this runs in


class GceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Virtual machines of Google Compute Engine."""

    nodes: int = 0  # that stand; jobs may ask for more
    project: str = ""
    zones: tuple[str, ...] = ()  # in order of preference
    machine_types: tuple[str, ...] = ("n2-standard-8",)  # in order of preference
    image: str = "projects/debian-cloud/global/images/family/debian-12"
    disk_gb: int = 20
    disk_gb_max: int = 1000  # that a job may ask for
    gpus: int = 0  # attached to each machine, beside those that its type has (g2, a2, a3)
    gpu_type: str = ""  # of those, e.g. nvidia-tesla-t4
    network: str = "global/networks/default"
    external_ip: bool = True  # False: the network has a NAT, or the image all that is needed
    spot: str = "prefer"  # "never"; "prefer": standard if there is no spot; "only"
    run_h: float = 24.0  # Compute Engine deletes a VM after this, whatever else happens
    owner: str = ""  # label; empty: the user's name
    wheelhouse: str = ""  # folder on the image that has all dependencies
    boot_s: float = 300.0  # from its creation to its first Hello; then it is given up
    silence_s: int = (
        600  # a VM that hears nothing from its scheduler for this long powers itself off
    )
    endpoint: str = ""  # of the API, for tests

    @property
    def place(self) -> tuple[str, ...]:
        """Where its machines are found again."""
        return self.endpoint, self.project

    def check(self, *, is_used: bool) -> None:
        """Complain of what is impossible; `is_used`: machines are made."""
        spots = ("never", "prefer", "only")
        must(self.spot in spots, "gce.spot", self.spot, "never, prefer or only")
        must(0 < self.run_h <= RUN_H_MAX, "gce.run_h", self.run_h, f"up to {RUN_H_MAX} h")
        must(0 < self.boot_s < math.inf, "gce.boot_s", self.boot_s, "more than 0 seconds")
        must(0 <= self.gpus <= GPUS_MAX, "gce.gpus", self.gpus, f"0 to {GPUS_MAX}")
        for name, size in (("disk_gb", self.disk_gb), ("disk_gb_max", self.disk_gb_max)):
            must(1 <= size <= DISK_GB_MAX, f"gce.{name}", size, f"1 to {DISK_GB_MAX}")
        kinds = "set together with gce.gpus, e.g. nvidia-tesla-t4"
        must(bool(self.gpus) == bool(self.gpu_type), "gce.gpu_type", self.gpu_type, kinds)
        if is_used:
            must(self.project, "gce.project", "", "the project that pays (--project)")
            zones = "one zone or more, e.g. us-central1-a (--zone)"
            must(self.zones, "gce.zones", [], zones)


class SlurmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that are asked of Slurm."""

    nodes: int = 0
    partition: str = ""
    walltime_min: int = 60
    cpus: int = 1  # per node
    gpus: int = 0  # per node
    drain_s: int = 60  # before the walltime ends a node takes no more work
    wait_s: float = 600.0  # for Slurm to have room; then what waits is cancelled
    options: tuple[str, ...] = ()  # more of sbatch, as "--account=x"

    @property
    def place(self) -> tuple[str, ...]:
        """Where its jobs are found again: there is one Slurm."""
        return ()

    def check(self) -> None:
        """Complain of what is impossible."""
        wait_s = self.wait_s
        must(0 < wait_s < math.inf, "slurm.wait_s", wait_s, "more than 0 seconds")


class KubernetesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that are pods of Kubernetes."""

    nodes: int = 0  # that stand; jobs may ask for more
    # Empty: one of its own, which is made, and deleted by `burla down`.
    namespace: str = ""
    # Both as `burla up` finds them at first: who changes kubectl's context does not lose the pods.
    # of the kubeconfig; "in-cluster": this pod's service account; empty: as kubectl has it
    context: str = ""
    kubeconfig: str = ""  # file; empty: as KUBECONFIG says, else ~/.kube/config
    # With the cluster's minor version of Python; empty: python:3.X-slim. Where it has this version
    # of burla, too, nothing is installed in a pod.
    image: str = ""
    pull_secrets: tuple[str, ...] = ()  # names of Secrets in the namespace
    cpus: int = 1  # of each pod: what it asks for, and its limit
    ram_gb: float = 4.0  # likewise
    gpus: int = 0  # likewise
    gpu_resource: str = "nvidia.com/gpu"
    disk_gb: int = 0  # likewise; 0: nothing is said of it
    node_selector: dict[str, str] = {}
    tolerations: tuple[str, ...] = ()  # KEY[=VALUE][:EFFECT], as `kubectl taint` has it
    service_account: str = ""  # pods have no token of it
    pod: dict[str, Any] = {}  # more of the pod's spec, in Kubernetes' words; goes before ours
    run_h: float = 24.0  # Kubernetes ends a pod after this, whatever else happens
    drain_s: int = 60  # that calls have to end when Kubernetes takes a pod away
    wheelhouse: str = ""  # folder in the image that has all dependencies
    boot_s: float = 300.0  # from its creation to its first Hello; then it is given up
    silence_s: int = 600  # a pod that hears nothing from its scheduler for this long ends

    @property
    def place(self) -> tuple[str, ...]:
        """Where its pods are found again."""
        return self.kubeconfig, self.context, self.namespace

    def placed_as(self, known: "KubernetesConfig") -> "KubernetesConfig":
        """Return this, there where `known` has its pods, unless this names another place."""
        file = str(Path(self.kubeconfig).expanduser().absolute()) if self.kubeconfig else ""
        is_there = file in ("", known.kubeconfig) and self.context in ("", known.context)
        if not is_there:
            return self
        return replace(self, kubeconfig=known.kubeconfig, context=known.context)

    def check(self) -> None:
        """Complain of what is impossible."""
        names = "a name as Kubernetes takes it: lower case letters, digits, '-'"
        for what, name in (
            ("namespace", self.namespace),
            ("service_account", self.service_account),
            *(("pull_secrets", name) for name in self.pull_secrets),
        ):
            plain = name.replace(".", "-") if what != "namespace" else name
            named = not name or KUBERNETES_NAME.fullmatch(plain)
            must(named, f"kubernetes.{what}", name, names)
        must(1 <= self.cpus <= CPUS_MAX, "kubernetes.cpus", self.cpus, f"1 to {CPUS_MAX}")
        must(0.1 <= self.ram_gb < math.inf, "kubernetes.ram_gb", self.ram_gb, "0.1 or more")
        must(0 <= self.gpus <= GPUS_MAX, "kubernetes.gpus", self.gpus, f"0 to {GPUS_MAX}")
        must(self.disk_gb >= 0, "kubernetes.disk_gb", self.disk_gb, "0 or more")
        must(0 < self.run_h <= RUN_H_MAX, "kubernetes.run_h", self.run_h, f"up to {RUN_H_MAX} h")
        must(self.drain_s >= 1, "kubernetes.drain_s", self.drain_s, "1 second or more")
        must(self.silence_s >= 30, "kubernetes.silence_s", self.silence_s, "30 seconds or more")
        boot_s = self.boot_s
        must(0 < boot_s < math.inf, "kubernetes.boot_s", boot_s, "more than 0 seconds")
        for text in self.tolerations:
            found = TOLERATION.fullmatch(text)
            effects = f"KEY[=VALUE][:EFFECT], EFFECT one of {', '.join(EFFECTS)}"
            known = found and (found["effect"] or EFFECTS[0]) in EFFECTS
            must(known, "kubernetes.tolerations", text, effects)


def kubernetes_name(text: str, most: int) -> str:
    """Return `text` as the name of something in Kubernetes, or the value of a label there."""
    return re.sub(r"[^a-z0-9-]", "-", text.lower())[:most].strip("-")


def must(true: object, name: str, value: object, expected: str) -> None:
    """Refuse a setting.

    Raises:
        BadConfig: it is not `true`.
    """
    if not true:
        raise BadConfig(f"{name} is {value!r}: it must be {expected}")
