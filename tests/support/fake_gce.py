"""A stand-in for Compute Engine's REST API on loopback, whose machines run the real startup script.

Keeps instances, operations, pages and label filters; breaks as it is told. A machine is a process
in a pid namespace of its own, with a metadata server of its own.
"""

import json
import os
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from waiting import wait_until

PAGE = 2  # instances a page, so that every list has several
JSON = dict[str, Any]


class Broken(Exception):
    """The connection ends without an answer."""


class HttpError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Vm:
    """One machine."""

    body: JSON  # as inserted, and what the service adds
    born_s: float
    guest: dict[str, str] = field(default_factory=dict)
    preempted: bool = False
    process: subprocess.Popen[bytes] | None = None
    server: ThreadingHTTPServer | None = None

    def metadata(self, key: str) -> str | None:
        items = self.body.get("metadata", {}).get("items", [])
        return next((item["value"] for item in items if item["key"] == key), None)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()  # unshare: the kernel kills all of its pid namespace
            self.process.wait(20)
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


@dataclass
class FakeGce:
    """The service. `faults[what]` are used up one a request; what: insert, delete, list, get."""

    directory: Path
    spawn: bool = False
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    exhausted: set[str] = field(default_factory=set)  # zones
    no_spot: bool = False
    room: int = 1000  # machines that there may be; then the quota is used up
    quota: str = ""  # message of a quota error for every insert
    ignores_filters: bool = False
    machine_types: dict[str, set[str]] = field(default_factory=dict)  # by zone; none: all of them
    vms: dict[str, Vm] = field(default_factory=dict)
    inserts: list[tuple[str, str, bool]] = field(default_factory=list)  # zone, type, spot
    requests: list[str] = field(default_factory=list)
    operations: dict[str, JSON] = field(default_factory=dict)
    later_s: float = 0.0  # added to the clock
    _by_request: dict[str, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # --- what a test does ---

    def alive(self) -> list[str]:
        with self._lock:
            return sorted(self.vms)

    def pass_time(self, seconds: float) -> None:
        """Let time pass: machines whose run duration is over are deleted, as Google does it."""
        with self._lock:
            self.later_s += seconds
            now_s = time.time() + self.later_s
            for name, vm in list(self.vms.items()):
                run = vm.body["scheduling"].get("maxRunDuration")
                if run and vm.born_s + int(run["seconds"]) <= now_s:
                    self.end(name)

    def end(self, name: str) -> None:
        with self._lock:
            vm = self.vms.pop(name)
        vm.kill()

    def preempt(self, name: str, until_gone_s: float = 20.0) -> None:
        """Announce the end of a machine; end it when it has drained, or after the grace period."""
        vm = self.vms[name]
        vm.preempted = True
        wait_until(lambda: vm.guest.get("state") == "drained", "it has drained", until_gone_s)
        self.end(name)

    # --- the service ---

    def handle(self, method: str, path: str, query: dict[str, str], body: JSON) -> JSON:
        parts = path.removeprefix("/compute/v1/projects/").split("/")
        with self._lock:
            self.requests.append(f"{method} {path}")
            match [method, *parts[1:]]:
                case ["POST", "zones", zone, "instances"]:
                    return self._faulty("insert", lambda: self._insert(zone, query, body))
                case ["DELETE", "zones", zone, "instances", name]:
                    return self._faulty("delete", lambda: self._delete(zone, name))
                case ["GET", "zones", zone, "instances", name]:
                    return self._instance(zone, name).body
                case ["POST", "zones", zone, "instances", name, "setMetadata"]:
                    return self._set_metadata(self._instance(zone, name), body)
                case ["GET", "aggregated", "instances"]:
                    return self._faulty("list", lambda: self._list(query))
                case ["GET", "zones", zone, "operations", name]:
                    return self._faulty("get", lambda: self.operations[name])
                case ["GET", "zones", zone, "machineTypes", name]:
                    if self.machine_types and name not in self.machine_types.get(zone, ()):
                        raise HttpError(404, "notFound", f"no machine type {name} in {zone}")
                    cpus = int(name.rpartition("-")[2])
                    return {"name": name, "guestCpus": cpus, "memoryMb": 4096 * cpus}
                case ["GET", "zones", zone, "instances", name, "getGuestAttributes"]:
                    return self._guest(name)
                case _:
                    raise HttpError(404, "notFound", f"no such thing: {method} {path}")

    def _faulty(self, what: str, act: Any) -> JSON:
        fault = self.faults[what].pop(0) if self.faults[what] else ""
        match fault:
            case "429":
                raise HttpError(429, "rateLimitExceeded", "Rate Limit Exceeded")
            case "500" | "503":
                raise HttpError(int(fault), "backendError", "Internal error")
            case "reset":  # it was done, but nobody is told
                act()
                raise Broken
            case "quota-http":
                text = "Quota 'CPUS' exceeded. Limit: 8.0 in region us-central1."
                raise HttpError(403, "quotaExceeded", text)
            case "capacity-http":
                raise HttpError(503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "no more here")
            case "bad":
                raise HttpError(400, "invalid", "Invalid value for field 'resource.machineType'")
            case _:  # of the operation
                self._next_insert = fault
        answer: JSON = act()
        self._next_insert = ""
        return answer

    _next_insert: str = ""

    def _insert(self, zone: str, query: dict[str, str], body: JSON) -> JSON:
        request = query.get("requestId", "")
        if request in self._by_request:  # the same request: the same operation
            return self.operations[self._by_request[request]]
        spot = body["scheduling"]["provisioningModel"] == "SPOT"
        self.inserts.append((zone, body["machineType"].rpartition("/")[2], spot))
        name = f"operation-{len(self.operations)}"
        operation: JSON = {"name": name, "status": "DONE", "zone": zone, "id": "123456789012345"}
        self.operations[name] = operation
        self._by_request[request] = name
        fault = self._next_insert
        if fault == "capacity" or zone in self.exhausted or (spot and self.no_spot):
            self._fail(operation, 503, "ZONE_RESOURCE_POOL_EXHAUSTED", "no more here")
        elif fault == "capacity-details":
            self._fail(operation, 503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "no more here")
        elif fault == "quota" or self.quota or len(self.vms) >= self.room:
            text = self.quota or "Quota 'SSD' exceeded.  Limit: 1.0 in region x."
            self._fail(operation, 403, "QUOTA_EXCEEDED", text)
        elif fault == "never-none":
            operation["status"] = "RUNNING"
        else:
            if fault == "never":
                operation["status"] = "RUNNING"
            self._boot(zone, body, stillborn=fault == "stillborn")
        return operation

    def _fail(self, operation: JSON, status: int, code: str, message: str) -> None:
        operation["error"] = {"errors": [{"code": code, "message": message}]}
        operation["httpErrorStatusCode"] = status
        operation["httpErrorMessage"] = "FORBIDDEN"

    def _boot(self, zone: str, body: JSON, *, stillborn: bool) -> None:
        name = body["name"]
        body |= {"status": "RUNNING", "id": "42", "zone": f"https://x/projects/p/zones/{zone}"}
        body.setdefault("metadata", {})["fingerprint"] = "print"
        vm = self.vms[name] = Vm(body, time.time() + self.later_s)
        if self.spawn and not stillborn:
            vm.server = _serve(_Metadata, vm)
            home = self.directory / name
            (home / "bin").mkdir(parents=True)
            off = home / "bin/poweroff"
            os.mkfifo(home / "off")
            off.write_text(f"#!/bin/sh\necho > {home}/off\n")
            off.chmod(0o755)
            script = home / "startup.sh"
            script.write_text(vm.metadata("startup-script") or "")
            env = {
                "PATH": f"{home}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "BURLA_HOME": str(home),
                "GCE_METADATA_HOST": f"127.0.0.1:{vm.server.server_address[1]}",
            }
            line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]
            init = f"sh {script} > {home}/serial 2>&1; read -r word < {home}/off"
            vm.process = subprocess.Popen([*line, "-c", init], env=env, cwd="/")

    def sweep_powered_off(self) -> None:
        """Stop machines that powered themselves off."""
        with self._lock:
            for vm in self.vms.values():
                if vm.process is not None and vm.process.poll() is not None:
                    vm.body["status"] = "TERMINATED"

    def _instance(self, zone: str, name: str) -> Vm:
        vm = self.vms.get(name)
        if vm is None or not vm.body["zone"].endswith(f"/{zone}"):
            raise HttpError(404, "notFound", f"The resource '{name}' was not found")
        return vm

    def _set_metadata(self, vm: Vm, body: JSON) -> JSON:
        if body.get("fingerprint") != vm.body["metadata"]["fingerprint"]:
            raise HttpError(412, "conditionNotMet", "Supplied fingerprint does not match current")
        vm.body["metadata"] = body | {"fingerprint": f"print-{len(self.requests)}"}
        return {"name": "operation-m", "status": "DONE"}

    def _delete(self, zone: str, name: str) -> JSON:
        self._instance(zone, name)
        self.end(name)
        return {"name": "operation-d", "status": "DONE", "zone": zone}

    def _list(self, query: dict[str, str]) -> JSON:
        wanted = [w.partition("=") for w in query.get("filter", "").split(" AND ") if w]
        found = [
            vm.body
            for _, vm in sorted(self.vms.items())
            if self.ignores_filters
            or all(
                vm.body.get("labels", {}).get(k.removeprefix("labels.")) == v for k, _, v in wanted
            )
        ]
        at = int(query.get("pageToken") or 0)
        items: dict[str, JSON] = {"zones/empty": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
        for body in found[at : at + PAGE]:
            scope = items.setdefault(f"zones/{body['zone'].rpartition('/')[2]}", {"instances": []})
            scope["instances"].append(body)
        more = {"nextPageToken": str(at + PAGE)} if at + PAGE < len(found) else {}
        return {"items": items, "kind": "compute#instanceAggregatedList"} | more

    def _guest(self, name: str) -> JSON:
        vm = self.vms.get(name)
        if vm is None or not vm.guest:
            raise HttpError(404, "notFound", "no guest attributes")
        items = [{"namespace": "burla", "key": k, "value": v} for k, v in vm.guest.items()]
        return {"queryPath": "burla/", "queryValue": {"items": items}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes: the second would wait for 40 ms

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


class _Api(_Handler):
    def _do(self) -> None:
        gce: FakeGce = self.server.state  # type: ignore[attr-defined]  # set by _serve
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        body = self.body()
        try:
            said = gce.handle(self.command, parts.path, query, json.loads(body or b"{}"))
            status = 200
        except HttpError as error:
            errors = [{"reason": error.reason, "message": error.message, "domain": "global"}]
            status = error.status
            said = {"error": {"code": status, "message": error.message, "errors": errors}}
        except Broken:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.answer(status, json.dumps(said).encode(), "application/json")

    do_GET = do_POST = do_DELETE = _do


class _Metadata(_Handler):
    def do_GET(self) -> None:
        vm: Vm = self.server.state  # type: ignore[attr-defined]  # set by _serve
        parts = urlsplit(self.path)
        key = parts.path.removeprefix("/computeMetadata/v1/instance/")
        until = time.monotonic() + (5 if "wait_for_change" in parts.query else 0)

        def value() -> str | None:
            if key == "preempted":
                return "TRUE" if vm.preempted else "FALSE"
            return vm.metadata(key.removeprefix("attributes/"))

        first = value()
        while value() == first and first != "TRUE" and time.monotonic() < until:
            time.sleep(0.02)
        found = value()
        if found is None:
            self.answer(404, b"", "text/plain")
        else:
            self.answer(200, found.encode(), "text/plain")

    def do_PUT(self) -> None:
        vm: Vm = self.server.state  # type: ignore[attr-defined]  # set by _serve
        vm.guest["state"] = self.body().decode()
        self.answer(200, b"", "text/plain")


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a machine that was killed in the middle of a question."""


def _serve(handler: type[_Handler], state: Any) -> ThreadingHTTPServer:
    server = _Quiet(("127.0.0.1", 0), handler)
    server.state = state  # type: ignore[attr-defined]  # what the handler serves
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@contextmanager
def fake_gce(directory: Path, *, spawn: bool = False) -> Iterator[tuple[FakeGce, str]]:
    """Run the service; yield it and its endpoint. No machine outlives it."""
    gce = FakeGce(directory, spawn)
    server = _serve(_Api, gce)
    try:
        yield gce, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        for name in gce.alive():
            gce.end(name)
        server.shutdown()
        server.server_close()
