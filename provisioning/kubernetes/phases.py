"""What Kubernetes says of a Job and its pod -> the phase of a node, and why. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from burla.provisioning.core.plan import DRAINING

GONE_S = 10  # a pod that is given up has so long to end
REFUSED = "FailedCreate"  # reason of an event of a Job: its pod is not let in
# A container that waits for one of these does not start by itself.
HOPELESS = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
STARTING = {"ContainerCreating", "PodInitializing"}
# Reasons of pods that Kubernetes took away: the next one may be luckier.
TAKEN = {"Evicted", "Preempted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown"}
TAKEN |= {"Terminated", "DeadlineExceeded", "NodeAffinity"}
# In why a pod is not let in: what is over when Kubernetes tries again, seconds later. A namespace
# that is new has no service account yet; a quota is changed by several pods at once.
PASSING = (
    "error looking up service account",
    "the object has been modified",
    "Internal error occurred",
    "context deadline exceeded",
    "timed out",
)
PULL = "set kubernetes.image to one that is there, or kubernetes.pull_secrets"

Phase = tuple[str, str]  # `Machine.state`, `Machine.why`


def phase_of(job: Any, pod: Any | None, refusals: Iterable[str] = ()) -> Phase:
    """Return the state of a node, and why.

    Args:
        job: as Kubernetes lists it.
        pod: of the Job; None: there is none, not yet or not any more.
        refusals: what Kubernetes says why there is none.
    """
    if pod is not None and pod.status is not None:
        return _of_pod(pod)
    conditions = _true(job.status.conditions if job.status else None)
    if job.metadata.deletionTimestamp is not None:
        return "ending", ""
    if "Complete" in conditions or "Failed" in conditions:
        return "ended", ""
    refused = list(refusals)
    if final := next((why for why in refused if not is_passing(why)), ""):
        return "failed", f"Kubernetes lets in no pod: {final}"
    return "creating", f"Kubernetes says: {refused[-1]}" if refused else ""


def is_passing(refusal: str) -> bool:
    """Return whether Kubernetes may let the pod in when it tries again by itself."""
    return any(words in refusal for words in PASSING)


def _of_pod(pod: Any) -> Phase:
    status, phase = pod.status, pod.status.phase
    if phase == "Succeeded":
        return "ended", ""
    if phase == "Failed":
        return _of_failed(status)
    if pod.metadata.deletionTimestamp is not None:
        left_s = pod.metadata.deletionGracePeriodSeconds or 0
        return "ending", DRAINING if left_s > GONE_S else ""
    if phase == "Running":
        return ("ready" if "Ready" in _true(status.conditions) else "joining"), ""
    return _of_pending(status)


def _of_failed(status: Any) -> Phase:
    taken = status.reason in TAKEN or "DisruptionTarget" in _true(status.conditions)
    why = ": ".join(filter(None, [status.reason, status.message]))
    if taken:
        return "ended", f"Kubernetes says: {why}"
    for ended in filter(None, (c.state and c.state.terminated for c in _containers(status))):
        if ended.reason == "OOMKilled":
            return "failed", "the pod needed more memory than kubernetes.ram_gb allows"
        why = ended.message or f"{ended.reason or 'ended'}, status {ended.exitCode}"
    return "failed", why or "its pod failed"


def _of_pending(status: Any) -> Phase:
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return "creating", f"Kubernetes says: {condition.message or condition.reason}"
    for waiting in filter(None, (c.state and c.state.waiting for c in _containers(status))):
        text = ": ".join(filter(None, [waiting.reason, waiting.message]))
        if waiting.reason in HOPELESS:
            return "failed", f"the image cannot be had: {PULL} ({text})"
        if waiting.reason not in STARTING:
            return "creating", f"Kubernetes says: {text}"
    return "creating", ""


def _containers(status: Any) -> Iterator[Any]:
    yield from status.initContainerStatuses or ()
    yield from status.containerStatuses or ()


def _true(conditions: Iterable[Any] | None) -> dict[str, str]:
    """Return the types of conditions that hold, with what is said of each."""
    return {c.type: c.message or "" for c in conditions or () if c.status == "True"}
