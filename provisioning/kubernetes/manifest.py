"""What Kubernetes is told of a node: a Job of one pod, and what that pod needs. Pure.

A Job, and no bare pod, because Kubernetes itself then removes all of it: it ends the pod at its
deadline, and some time after its end removes the Job with what that owns. One Job for each node,
and not an Indexed one for all, because an idle node is deleted by itself.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burla.provisioning.config import ClusterConfig, log_options
from burla.provisioning.core.plan import CLUSTER, MADE_BY, MANAGED
from burla.provisioning.install.wheels import WHEEL
from burla.provisioning.provider_settings import TOLERATION, KubernetesConfig, kubernetes_name
from burla.transport.addresses import take_apart

HEAD = "burla-head"  # label: of which scheduler
NODE = "burla-node"  # label of a pod: the name of its Job
GROWN = "burla-grown"
PLACE = "/mnt/burla"  # of what is mounted into a pod
FILES, TOKEN = f"{PLACE}/files", f"{PLACE}/token"
HOME = "/tmp/burla"  # no volume: everybody may write to those, and a key may not lie there
CONTAINER = "node"
USER = 1000  # that pods run as: nobody in particular
AFTER_S = 60  # for which a Job that has ended can be looked at
READY_S = 60  # a nodelet touches its ready file every few seconds
GB = 1 << 30
READY = f'[ $(($(date +%s) - $(stat -c %Y "$HOME/node/ready"))) -le {READY_S} ]'

# Who takes machines away to save some is to leave those on which calls run; an idle pod is deleted.
KEPT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
KEPT |= {"karpenter.sh/do-not-disrupt": "true"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """Whose nodes they are."""

    config: ClusterConfig
    scheduler: str  # its address

    @property
    def head(self) -> str:
        """What tells this cluster from those of others that are called the same."""
        place = take_apart(self.scheduler).endpoint if self.scheduler else ""
        return hashlib.sha256(place.encode()).hexdigest()[:8]

    @property
    def namespace(self) -> str:
        """The namespace in which everything of the cluster is."""
        own = f"burla-{kubernetes_name(self.config.name, 40)}-{self.head}"
        return self.config.kubernetes.namespace or own


def labels(owner: Owner) -> dict[str, str]:
    """Return what tells everything of a cluster from all else."""
    return {
        MANAGED: "true",
        CLUSTER: kubernetes_name(owner.config.name, 63),
        HEAD: owner.head,
        "app.kubernetes.io/managed-by": "burla",
    }


def job(owner: Owner, name: str, files: str, *, grown: bool) -> Json:
    """Return the Job of one node.

    Args:
        owner: whose node it is.
        name: of the node, and of the Secret that may have a join token for it.
        files: name of the ConfigMap of `files_of`.
        grown: it is made for a job that asked.
    """
    config = owner.config
    of_node = {NODE: name, MADE_BY: config.stamp, GROWN: "true" if grown else "false"}
    metadata = {"name": name, "labels": labels(owner) | of_node}
    return {
        "metadata": metadata,
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,  # a node that is lost is replaced by `burla up`, or for a job
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": int(config.kubernetes.run_h * 3600),
            "ttlSecondsAfterFinished": AFTER_S,
            "template": {
                "metadata": {"labels": metadata["labels"], "annotations": KEPT},
                "spec": _pod(config, name, files, owner.scheduler),
            },
        },
    }


def _pod(config: ClusterConfig, name: str, files: str, scheduler: str) -> Json:
    kubernetes = config.kubernetes
    ours: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": kubernetes.drain_s,
        "automountServiceAccountToken": False,  # what runs there has no rights in Kubernetes
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(config, name, scheduler)],
        "volumes": [
            {"name": "files", "configMap": {"name": files}},
            # none, where the scheduler takes nodes without one
            {"name": "token", "secret": {"secretName": name}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if kubernetes.node_selector:
        ours["nodeSelector"] = dict(kubernetes.node_selector)
    if kubernetes.tolerations:
        ours["tolerations"] = [_toleration(text) for text in kubernetes.tolerations]
    if kubernetes.pull_secrets:
        ours["imagePullSecrets"] = [{"name": secret} for secret in kubernetes.pull_secrets]
    if kubernetes.service_account:
        ours["serviceAccountName"] = kubernetes.service_account
    merged: Json = merge(ours, kubernetes.pod)
    return merged


def _container(config: ClusterConfig, name: str, scheduler: str) -> Json:
    kubernetes = config.kubernetes
    words = ["sh", f"{FILES}/pod.sh", str(kubernetes.silence_s), WHEEL, config.python]
    words += ["--cluster", config.name, "--name", name, "--scheduler", scheduler]
    words += ["--cpus", str(kubernetes.cpus), "--ram", f"{kubernetes.ram_gb:g}"]
    words += ["--wheelhouse", kubernetes.wheelhouse] if kubernetes.wheelhouse else []
    words += log_options(config)
    amounts = _amounts(kubernetes)
    return {
        "name": CONTAINER,
        "image": image(config),
        "command": words,
        "env": [{"name": "HOME", "value": HOME}],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": {
            "exec": {"command": ["sh", "-c", READY]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": FILES, "readOnly": True},
            {"name": "token", "mountPath": TOKEN, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # without it, 64 MB
        ],
    }


def image(config: ClusterConfig) -> str:
    """Return the image that pods have."""
    return config.kubernetes.image or f"python:{config.python}-slim"


def _amounts(kubernetes: KubernetesConfig) -> dict[str, str]:
    amounts = {"cpu": str(kubernetes.cpus), "memory": str(int(kubernetes.ram_gb * GB))}
    if kubernetes.gpus:
        amounts[kubernetes.gpu_resource] = str(kubernetes.gpus)
    if kubernetes.disk_gb:
        amounts["ephemeral-storage"] = str(kubernetes.disk_gb * GB)
    return amounts


def _toleration(text: str) -> Json:
    found = TOLERATION.fullmatch(text)
    assert found is not None, text
    said: Json = {"operator": "Exists" if found["value"] is None else "Equal"}
    names = {"key": found["key"], "value": found["value"], "effect": found["effect"]}
    return said | {name: value for name, value in names.items() if value}


def token(whose: Owner, name: str, job: Json, secret: bytes | None) -> Json:
    """Return the Secret of one node, which goes with its Job.

    It has the join token, and the package index, whose address may have a password.
    """
    files = {"token": secret or b"", "index": whose.config.index.encode()}
    data = {file: base64.b64encode(content).decode() for file, content in files.items()}
    metadata = {"name": name, "labels": labels(whose), "ownerReferences": [job]}
    return {"metadata": metadata, "data": data, "type": "Opaque"}


def files_of(whose: Owner, name: str, jobs: Sequence[Json], files: Mapping[str, bytes]) -> Json:
    """Return the ConfigMap with what nodes are made of; it goes when the last of its Jobs goes."""
    data = {file: base64.b64encode(content).decode() for file, content in files.items()}
    metadata = {"name": name, "labels": labels(whose), "ownerReferences": list(jobs)}
    return {"metadata": metadata, "binaryData": data}


def reference(name: str, uid: str) -> Json:
    """Return a Job as the owner of something: Kubernetes removes that after it."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}


def merge(ours: Any, theirs: Any) -> Any:
    """Return `ours` with what users want otherwise; in lists, what has the same name is merged."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        both = {key: merge(ours[key], theirs[key]) for key in ours if key in theirs}
        return ours | theirs | both
    if isinstance(ours, list) and isinstance(theirs, list) and all(map(_name, [*ours, *theirs])):
        by_name = {_name(one): one for one in ours}
        for one in theirs:
            by_name[_name(one)] = merge(by_name.get(_name(one)), one)
        return list(by_name.values())
    return theirs


def _name(one: Any) -> str:
    return str(one.get("name", "")) if isinstance(one, dict) else ""
