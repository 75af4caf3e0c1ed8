"""A stand-in for the API server of Kubernetes on loopback, whose pods are real processes.

Keeps objects, label and field selectors, pages, grace periods, owners and deadlines; its
controllers work when they are looked at, so nothing runs by itself but pods. A pod is a process in
namespaces of its own for mounts and process ids, with the user, rights and volumes that its spec
says. It breaks as it is told.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kube_rules import why_invalid

JSON = dict[str, Any]
KINDS = {
    "namespaces": ("v1", "Namespace"),
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
    "configmaps": ("v1", "ConfigMap"),
    "events": ("v1", "Event"),
    "jobs": ("batch/v1", "Job"),
}
RETRY_AFTER_S = 7  # for which who asks too much is told to wait
MESSAGE_BYTES = 2048  # of a log, as the message of a container that ended
PROBE_S = 0.2


class KubeError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Broken(Exception):
    """The connection ends without an answer."""


@dataclass
class Running:
    """The process of a pod."""

    process: subprocess.Popen[bytes]
    home: Path
    probed_s: float = 0.0

    def init(self) -> int | None:
        """Return the process id of its first process."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with suppress(OSError, ValueError):
            return int(path.read_text().split()[0])
        return None

    def end(self) -> None:
        self.process.kill()  # unshare: the kernel kills all of its pid namespace
        self.process.wait(20)


@dataclass
class FakeKube:
    """The server. `faults["POST jobs"]` are used up one a request."""

    directory: Path
    spawn: bool = False
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    room: int = 1000  # pods that there may be; then the quota is used up
    unschedulable: str = ""  # why pods stay pending
    passing: list[str] = field(default_factory=list)  # why a pod is not let in; used up
    waits_for: tuple[str, str] = ("", "")  # reason and message of containers that do not start
    ignores_labels: bool = False
    stillborn: bool = False  # pods run, and do nothing
    requests: list[str] = field(default_factory=list)
    objects: dict[tuple[str, str, str], JSON] = field(default_factory=dict)  # kind, space, name
    running: dict[str, Running] = field(default_factory=dict)  # by uid
    later_s: float = 0.0  # added to the clock
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _version: int = 0

    # --- what a test does ---

    def now_s(self) -> float:
        return time.time() + self.later_s

    def all_of(self, kind: str) -> list[JSON]:
        with self._lock:
            self._work()
            return [made for (of, _, _), made in sorted(self.objects.items()) if of == kind]

    def alive(self, kind: str = "jobs") -> list[str]:
        return [made["metadata"]["name"] for made in self.all_of(kind)]

    def pod_of(self, job: str) -> JSON:
        return next(
            pod for pod in self.all_of("pods") if pod["metadata"]["labels"]["burla-node"] == job
        )

    def left(self) -> list[str]:
        """Return all that there is, but for what is there in each cluster."""
        with self._lock:
            self._work()
            return [f"{kind} {name}" for kind, _, name in sorted(self.objects) if name != "default"]

    def pass_time(self, seconds: float) -> None:
        with self._lock:
            self.later_s += seconds
            for _ in range(3):  # one controller waits for another
                self._work()

    def evict(self, job: str, why: str = "Evicted") -> None:
        """Take a pod away, as a machine does that has no memory left."""
        pod = self.pod_of(job)
        with self._lock:
            self._kill(pod)
            pod["status"] |= {"phase": "Failed", "reason": why, "message": "The node was low on x"}

    def drain_machine(self, job: str) -> None:
        """Have a pod deleted by the API, as `kubectl drain` does, with the grace of its spec."""
        pod = self.pod_of(job)
        where = pod["metadata"]
        self.handle(
            "DELETE", f"/api/v1/namespaces/{where['namespace']}/pods/{where['name']}", {}, {}
        )

    # --- requests ---

    def handle(self, method: str, path: str, query: dict[str, str], body: JSON) -> Any:
        parts = path.removeprefix("/api/v1/").removeprefix("/apis/batch/v1/").split("/")
        if parts[0] == "namespaces" and len(parts) > 2:
            parts = [parts[2], parts[1], *parts[3:]]
        elif parts[0] == "namespaces":
            parts = ["namespaces", "", *parts[1:]]
        kind, space, *names = parts
        with self._lock:
            self.requests.append(f"{method} {kind}")
            if kind not in KINDS:
                raise KubeError(404, "NotFound", f"no such thing: {path}")
            act: Callable[[], Any]
            match [method, *names]:
                case ["POST"]:
                    act = partial(self._create, kind, space, body)
                case ["GET"]:
                    act = partial(self._list, kind, space, query)
                case ["GET", name]:
                    act = partial(self._get, kind, space, name)
                case ["DELETE", name]:
                    act = partial(self._delete, kind, space, name, query, body)
                case _:
                    raise KubeError(405, "MethodNotAllowed", f"{method} {path}")
            return self._faulty(f"{method} {kind}", act)

    def _faulty(self, what: str, act: Callable[[], Any]) -> Any:
        fault = self.faults[what].pop(0) if self.faults[what] else ""
        match fault:
            case "409":
                raise KubeError(409, "AlreadyExists", f"{what} already exists")
            case "410":
                text = "The provided continue parameter is too old"
                raise KubeError(410, "Expired", text)
            case "401":
                raise KubeError(401, "Unauthorized", "Unauthorized")
            case "403":
                raise KubeError(403, "Forbidden", f'User "ann" cannot {what}')
            case "quota":
                text = "forbidden: exceeded quota: few, requested: count/jobs.batch=1, limited: 1"
                raise KubeError(403, "Forbidden", text)
            case "422":
                raise KubeError(422, "Invalid", "spec.template: Invalid value")
            case "429":
                raise KubeError(429, "TooManyRequests", "the server has received too many requests")
            case "500" | "503":
                raise KubeError(int(fault), "InternalError", "etcdserver: request timed out")
            case "reset":  # it was done, but nobody is told
                act()
                raise Broken
            case "away":
                raise Broken
            case _:
                pass
        self._work()
        answer = act()
        self._work()
        return answer

    def _create(self, kind: str, space: str, body: JSON) -> JSON:
        metadata = body["metadata"]
        name = metadata["name"]
        if (kind, space, name) in self.objects:
            raise KubeError(409, "AlreadyExists", f'{kind} "{name}" already exists')
        if space and ("namespaces", "", space) not in self.objects:
            raise KubeError(404, "NotFound", f'namespaces "{space}" not found')
        if why := why_invalid(body):
            raise KubeError(422, "Invalid", f'{kind} "{name}" is invalid: {why}')
        return self._add(kind, space, body)

    def _add(self, kind: str, space: str, body: JSON) -> JSON:
        version, named = KINDS[kind]
        self._version += 1
        made = datetime.fromtimestamp(self.now_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body |= {"apiVersion": version, "kind": named}
        body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": made}
        body["metadata"] |= {"resourceVersion": str(self._version)}
        body["metadata"] |= {"namespace": space} if space else {}
        if kind != "events":
            body.setdefault("status", {"phase": "Active"} if kind == "namespaces" else {})
        self.objects[kind, space, body["metadata"]["name"]] = body
        return body

    def _get(self, kind: str, space: str, name: str) -> JSON:
        found = self.objects.get((kind, space, name))
        if found is None:
            raise KubeError(404, "NotFound", f'{kind} "{name}" not found')
        return found

    def _list(self, kind: str, space: str, query: dict[str, str]) -> JSON:
        labels = [] if self.ignores_labels else _terms(query.get("labelSelector", ""))
        fields = _terms(query.get("fieldSelector", ""))
        found = [
            made
            for (of, where, _), made in sorted(self.objects.items())
            if (of, where) == (kind, space)
            and all(made["metadata"].get("labels", {}).get(k) == v for k, v in labels)
            and all(_at(made, k) == v for k, v in fields)
        ]
        begin, limit = int(query.get("continue") or 0), min(2, int(query.get("limit") or 2))
        metadata: JSON = {"resourceVersion": str(self._version)}
        if begin + limit < len(found):
            metadata["continue"] = str(begin + limit)
        version, named = KINDS[kind]
        items = found[begin : begin + limit]
        return {"apiVersion": version, "kind": f"{named}List", "metadata": metadata, "items": items}

    def _delete(self, kind: str, space: str, name: str, query: dict[str, str], body: JSON) -> JSON:
        found = self._get(kind, space, name)
        if kind == "pods":
            said = query.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
            usual = found["spec"].get("terminationGracePeriodSeconds", 30)
            self._end_pod(found, int(usual if said is None else said))
        elif kind == "namespaces":
            found["status"]["phase"] = "Terminating"
        else:
            del self.objects[kind, space, name]
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _end_pod(self, pod: JSON, grace_s: int) -> None:
        metadata = pod["metadata"]
        running = self.running.get(metadata["uid"])
        before_s = metadata.get("deletionGracePeriodSeconds")
        if running is None:
            self._remove(pod)
        elif before_s is None or grace_s < before_s:
            metadata["deletionGracePeriodSeconds"] = grace_s
            ends_s = self.now_s() + grace_s
            metadata["deletionTimestamp"] = datetime.fromtimestamp(ends_s, UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            )
            pod["x-ends-s"] = ends_s
            init = running.init()
            if before_s is None and init is not None:
                os.kill(init, signal.SIGTERM)

    # --- controllers ---

    def _work(self) -> None:
        for job in [made for (kind, _, _), made in self.objects.items() if kind == "jobs"]:
            self._look_at_job(job)
        for pod in [made for (kind, _, _), made in self.objects.items() if kind == "pods"]:
            self._look_at_pod(pod)
        self._collect()

    def _look_at_job(self, job: JSON) -> None:
        status, metadata = job["status"], job["metadata"]
        made_s = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
        if status.get("conditions"):
            ttl_s = job["spec"].get("ttlSecondsAfterFinished")
            if ttl_s is not None and self.now_s() >= status["x-ended-s"] + ttl_s:
                del self.objects["jobs", metadata["namespace"], metadata["name"]]
            return
        pod = next(
            (
                made
                for (kind, _, _), made in self.objects.items()
                if kind == "pods"
                and made["metadata"]["ownerReferences"][0]["uid"] == metadata["uid"]
            ),
            None,
        )
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        if deadline_s is not None and self.now_s() >= made_s + deadline_s:
            if pod is not None:
                self._end_pod(pod, 0)
            self._ended(job, "Failed", "DeadlineExceeded")
        elif pod is None and status.get("x-had-a-pod"):
            self._ended(job, "Failed", "BackoffLimitExceeded")
        elif pod is None:
            self._make_pod(job)
        elif pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._ended(job, {"Succeeded": "Complete"}.get(pod["status"]["phase"], "Failed"), "")

    def _ended(self, job: JSON, how: str, reason: str) -> None:
        job["status"]["conditions"] = [{"type": how, "status": "True", "reason": reason}]
        job["status"]["x-ended-s"] = self.now_s()

    def _make_pod(self, job: JSON) -> None:
        metadata = job["metadata"]
        space, name = metadata["namespace"], metadata["name"]
        if sum(kind == "pods" for kind, _, _ in self.objects) >= self.room:
            if not any(kind == "events" and name in event for kind, _, event in self.objects):
                self._refuse(space, name, "forbidden: exceeded quota: few")
            return
        if self.passing:
            self._refuse(space, name, self.passing.pop(0))
            return
        template = job["spec"]["template"]
        labels = dict(template["metadata"]["labels"]) | {"job-name": name}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": metadata["uid"]}
        made = {"name": f"{name}-{uuid.uuid4().hex[:5]}", "labels": labels}
        made |= {"ownerReferences": [owner]}
        status = {"phase": "Pending"}
        self._add("pods", space, {"metadata": made, "spec": template["spec"], "status": status})
        job["status"]["x-had-a-pod"] = True

    def _refuse(self, space: str, job: str, why: str) -> None:
        """Tell of a Job whose pod is not let in."""
        where = {"kind": "Job", "name": job, "namespace": space}
        text = f'Error creating: pods "{job}-x" is {why}'
        for (kind, _, _), event in self.objects.items():
            if kind == "events" and event["message"] == text:
                return  # it is counted there
        event = {"metadata": {"name": f"{job}.{uuid.uuid4().hex[:16]}"}, "reason": "FailedCreate"}
        self._add("events", space, event | {"message": text, "involvedObject": where})

    def _look_at_pod(self, pod: JSON) -> None:
        status, uid = pod["status"], pod["metadata"]["uid"]
        running = self.running.get(uid)
        if status["phase"] == "Pending":
            self._start_pod(pod)
        elif running is not None:
            if running.process.poll() is not None:
                self._pod_ended(pod, running)
            elif self.now_s() >= pod.get("x-ends-s", float("inf")):
                running.end()
                self._pod_ended(pod, running)
            else:
                self._probe(pod, running)

    def _start_pod(self, pod: JSON) -> None:
        status = pod["status"]
        if self.unschedulable:
            said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status["conditions"] = [said | {"message": self.unschedulable}]
            return
        reason, message = self.waits_for
        if not reason and any(self._volume(pod, v) is None for v in pod["spec"]["volumes"]):
            reason, message = "ContainerCreating", ""
        if reason:
            waiting = {"reason": reason, "message": message}
            status["containerStatuses"] = [_container("waiting", waiting)]
            return
        status |= {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
        status["containerStatuses"] = [_container("running", {})]
        if self.spawn and not self.stillborn:
            self.running[pod["metadata"]["uid"]] = self._spawn(pod)

    def _volume(self, pod: JSON, volume: JSON) -> dict[str, bytes] | None:
        """Return the files of a volume; None: it cannot be had yet."""
        space = pod["metadata"]["namespace"]
        if "configMap" in volume:
            found = self.objects.get(("configmaps", space, volume["configMap"]["name"]))
            data = None if found is None else found["binaryData"]
        elif "secret" in volume:
            found = self.objects.get(("secrets", space, volume["secret"]["secretName"]))
            data = None if found is None else found["data"]
        else:
            data = {}
        return None if data is None else {k: base64.b64decode(v) for k, v in data.items()}

    def _spawn(self, pod: JSON) -> Running:
        home = self.directory / pod["metadata"]["name"]
        home.mkdir()
        container, security = pod["spec"]["containers"][0], pod["spec"]["securityContext"]
        group = security["fsGroup"]
        places = {v["name"]: v["mountPath"] for v in container["volumeMounts"]}
        tmp = home / "tmp"
        tmp.mkdir()
        tmp.chmod(0o1777)
        mounts = ["mount -t tmpfs none /mnt"]
        for volume in pod["spec"]["volumes"]:
            place, folder = places[volume["name"]], home / volume["name"]
            if "hostPath" in volume:
                folder = Path(volume["hostPath"]["path"])
                mounts += [f"mkdir -p {place}", f"mount --bind {folder} {place}"]
                continue
            folder.mkdir()
            for name, data in (self._volume(pod, volume) or {}).items():
                (folder / name).write_bytes(data)
                (folder / name).chmod(0o644)
            if "emptyDir" in volume:
                os.chown(folder, 0, group)
                folder.chmod(0o2777)
            mounts += [f"mkdir -p {place}", f"mount --bind {folder} {place}"]
        user = security["runAsUser"]
        rights = container["securityContext"]
        assert rights["capabilities"]["drop"] == ["ALL"]
        assert rights["allowPrivilegeEscalation"] is False
        become = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs"
        become += " --bounding-set=-all --inh-caps=-all"
        mounts += [f"mount --bind {tmp} /tmp"]
        script = " && ".join([*mounts, f'exec {become} "$@"'])
        line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        line += ["sh", "-c", script, "sh", *container["command"]]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        env |= {one["name"]: one["value"] for one in container["env"]}
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(line, env=env, cwd="/", stdout=log, stderr=log)
        return Running(process, home)

    def _probe(self, pod: JSON, running: Running) -> None:
        if time.monotonic() - running.probed_s < PROBE_S:
            return
        running.probed_s = time.monotonic()
        container = pod["spec"]["containers"][0]
        probe = container["readinessProbe"]["exec"]["command"]
        line = ["nsenter", "--mount", "--target", str(running.process.pid), *probe]
        env = {one["name"]: one["value"] for one in container["env"]}
        env |= {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(line, env=env, capture_output=True, check=False, timeout=10)
        ready = "True" if done.returncode == 0 else "False"
        pod["status"]["conditions"] = [{"type": "Ready", "status": ready}]

    def _pod_ended(self, pod: JSON, running: Running) -> None:
        uid = pod["metadata"]["uid"]
        del self.running[uid]
        code = running.process.returncode
        text = (running.home / "log").read_text("utf-8", "replace")[-MESSAGE_BYTES:]
        ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
        if code:
            ended["message"] = text
        status = pod["status"]
        status["phase"] = "Failed" if code else "Succeeded"
        status["containerStatuses"] = [_container("terminated", ended)]
        if "deletionTimestamp" in pod["metadata"]:
            self._remove(pod)

    def _kill(self, pod: JSON) -> None:
        running = self.running.pop(pod["metadata"]["uid"], None)
        if running is not None:
            running.end()

    def _remove(self, pod: JSON) -> None:
        self._kill(pod)
        where = pod["metadata"]
        self.objects.pop(("pods", where["namespace"], where["name"]), None)
        shutil.rmtree(self.directory / where["name"], ignore_errors=True)

    def _collect(self) -> None:
        """Remove what has lost all of its owners, and namespaces that are to go."""
        uids = {made["metadata"]["uid"] for made in self.objects.values()}
        for key, made in list(self.objects.items()):
            owners = made["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in uids for owner in owners):
                if key[0] == "pods":
                    usual = made["spec"].get("terminationGracePeriodSeconds", 30)
                    self._end_pod(made, usual)
                else:
                    del self.objects[key]
        for key, made in list(self.objects.items()):
            if key[0] == "namespaces" and made["status"]["phase"] == "Terminating":
                inside = [k for k in self.objects if k[1] == key[2]]
                for k in inside:
                    if k[0] == "pods":
                        self._end_pod(self.objects[k], 30)
                    else:
                        del self.objects[k]
                if not inside:
                    del self.objects[key]

    def close(self) -> None:
        with self._lock:
            for running in self.running.values():
                running.end()


def _container(state: str, about: JSON) -> JSON:
    """Return the status of a container, with all that Kubernetes always says."""
    said = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return said | {"state": {state: about}}


def _terms(selector: str) -> list[tuple[str, str]]:
    terms = [term.partition("=") for term in selector.split(",") if term]
    return [(key, value.lstrip("=")) for key, _, value in terms]


def _at(made: JSON, path: str) -> object:
    found: Any = made
    for step in path.split("."):
        found = found.get(step, {}) if isinstance(found, dict) else None
    return found


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes: the second would wait for 40 ms

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _do(self) -> None:
        kube: FakeKube = self.server.state  # type: ignore[attr-defined]  # set by fake_kube
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status = 200
            said = kube.handle(self.command, parts.path, query, json.loads(body or b"{}"))
            data = json.dumps(said).encode()
        except KubeError as error:
            status = error.status
            said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
            said |= {"reason": error.reason, "message": error.message}
            data = json.dumps(said).encode()
        except Broken:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _do


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


def kubeconfig(directory: Path, server: str) -> Path:
    """Write the file by which people reach it."""
    file = directory / "kubeconfig"
    file.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: fake\n"
        f"clusters: [{{name: fake, cluster: {{server: '{server}'}}}}]\n"
        "users: [{name: ann, user: {token: secret}}]\n"
        "contexts: [{name: fake, context: {cluster: fake, user: ann}}]\n"
    )
    return file


@contextmanager
def fake_kube(directory: Path, *, spawn: bool = False) -> Iterator[tuple[FakeKube, Path]]:
    """Run the server; yield it and a kubeconfig that leads to it. No pod outlives it."""
    kube = FakeKube(directory, spawn)
    kube._add("namespaces", "", {"metadata": {"name": "default"}})
    server = _Quiet(("127.0.0.1", 0), _Api)
    server.state = kube  # type: ignore[attr-defined]  # what the handler serves
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield kube, kubeconfig(directory, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        kube.close()
