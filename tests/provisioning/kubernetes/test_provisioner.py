"""Pods against a stand-in for Kubernetes: refusals, faults, why pods wait, and nothing left."""

import base64
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from autoscaled import LONG, Told
from fake_kube import RETRY_AFTER_S, FakeKube, fake_kube, kubeconfig

from burla.provisioning.autoscaler import Autoscaler
from burla.provisioning.config import parse
from burla.provisioning.core.machines import BadConfig, Machine, ProvisioningError
from burla.provisioning.core.plan import DRAINING, Limits
from burla.provisioning.fleet import Fleet
from burla.provisioning.install import bootstrap
from burla.provisioning.install.pins import Requirements
from burla.provisioning.kubernetes import provisioner as provisioning
from burla.provisioning.kubernetes.provisioner import Kubernetes

pytestmark = pytest.mark.usefixtures("loopback_only")
ADDRESS = f"burla://10.0.0.1:7270?key={'0' * 64}"
Site = tuple[FakeKube, Path]


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what nodes install without asking an index, and without packing it each time."""
    found = Requirements("burla --hash=sha256:0\n")
    monkeypatch.setattr(provisioning, "pinned_for_node", lambda python, index: found)
    monkeypatch.setattr(provisioning, "xz_for_node", lambda: b"wheel")
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with fake_kube(tmp_path) as made:
        yield made


def pods(
    file: Path, said: list[str] | None = None, address: str = ADDRESS, **told: Any
) -> Kubernetes:
    config = parse({"name": "lab", "kubernetes": {"nodes": 1, "kubeconfig": str(file)} | told})
    say = (lambda text: None) if said is None else said.append
    return Kubernetes(config, address, lambda name: b"token", say, lambda seconds: None)


def quiet(name: str, phase: str) -> None:
    """Tell nobody."""


# --- what is made ---


def test_a_job_has_all_that_ends_it_and_owns_what_it_needs(site: Site) -> None:
    kube, file = site
    first, second = pods(file).create(2, grown=True)
    job = kube.all_of("jobs")[0]
    assert job["spec"]["activeDeadlineSeconds"] == 24 * 3600
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
    assert job["spec"]["backoffLimit"] == 0
    assert job["metadata"]["labels"]["burla-grown"] == "true"
    kept = job["spec"]["template"]["metadata"]["annotations"]
    assert kept["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    uids = {one["metadata"]["name"]: one["metadata"]["uid"] for one in kube.all_of("jobs")}
    for secret in kube.all_of("secrets"):
        (owner,) = secret["metadata"]["ownerReferences"]
        assert owner["uid"] == uids[secret["metadata"]["name"]]
    (files,) = kube.all_of("configmaps")
    assert {owner["uid"] for owner in files["metadata"]["ownerReferences"]} == {*uids.values()}
    for name in (first.name, second.name):  # whoever deletes them, the rest goes with them
        assert kube.left() != ["namespaces " + job["metadata"]["namespace"]]
        kube.handle(
            "DELETE", f"/apis/batch/v1/namespaces/{first.address.split('/')[0]}/jobs/{name}", {}, {}
        )
    assert kube.left() == [f"namespaces {job['metadata']['namespace']}"]


def test_a_pod_has_no_rights_and_asks_for_what_is_set(site: Site) -> None:
    kube, file = site
    told: dict[str, Any] = {
        "cpus": 4,
        "ram_gb": 1.5,
        "gpus": 2,
        "disk_gb": 3,
        "image": "registry/x:1",
        "pull_secrets": ["reg"],
        "node_selector": {"pool": "gpu"},
        "tolerations": ["gpu=true:NoSchedule", "spot"],
        "service_account": "worker",
        "pod": {
            "hostUsers": False,
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "node", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}],
        },
    }
    pods(file, **told).create(1)
    spec = kube.all_of("pods")[0]["spec"]
    (container,) = spec["containers"]
    asked = {"cpu": "4", "memory": str(3 << 29), "nvidia.com/gpu": "2"}
    asked["ephemeral-storage"] = str(3 << 30)
    assert container["resources"] == {"requests": asked, "limits": asked}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert (container["image"], spec["imagePullSecrets"]) == ("registry/x:1", [{"name": "reg"}])
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert (spec["serviceAccountName"], spec["hostUsers"]) == ("worker", False)
    assert [v["name"] for v in spec["volumes"]] == ["files", "token", "shm", "data"]
    assert [v["name"] for v in container["volumeMounts"]] == ["files", "token", "shm", "data"]
    assert "token" not in str(container["command"] + container["env"])


def test_a_join_token_that_would_expire_before_a_pod_is_up_is_said_before(site: Site) -> None:
    kube, file = site
    with pytest.raises(BadConfig, match=r"kubernetes\.boot_s is 3600: it must be at most 600"):
        pods(file, boot_s=3600.0).create(1)
    assert kube.left() == []


@pytest.mark.parametrize("name", ["A._b-C", "x" * 63, "9" * 63, "a" + "-" * 61 + "b"])
def test_any_name_of_a_cluster_becomes_names_that_kubernetes_takes(site: Site, name: str) -> None:
    _, file = site
    told = {"name": name, "kubernetes": {"nodes": 1, "kubeconfig": str(file)}}
    one = Kubernetes(parse(told), ADDRESS, lambda name: b"token")
    assert [machine.name for machine in one.create(1)] == [m.name for m in one.observe()]


def test_what_nodes_are_made_of_fits_into_a_configmap(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = site
    monkeypatch.setattr(provisioning, "xz_for_node", lambda: os.urandom(480_000))
    monkeypatch.setattr(bootstrap, "script", lambda: os.urandom(100_000))
    assert len(pods(file).create(1)) == 1


def test_the_password_of_an_index_is_in_the_secret_only(site: Site) -> None:
    kube, file = site
    index = "https://ann:hidden@host/simple"
    told = {"name": "lab", "index": index, "kubernetes": {"nodes": 1, "kubeconfig": str(file)}}
    Kubernetes(parse(told), ADDRESS, lambda name: b"token").create(1)
    for kind in ("jobs", "pods", "configmaps"):
        assert "hidden" not in str(kube.all_of(kind))
    (secret,) = kube.all_of("secrets")
    assert base64.b64decode(secret["data"]["index"]).decode() == index


# --- refusals ---


@pytest.mark.parametrize(
    "why",
    [
        'forbidden: error looking up service account x/default: serviceaccount "default" not found',
        'invalid: Operation cannot be fulfilled on resourcequotas "few": the object has been'
        " modified; please apply your changes to the latest version and try again",
        'invalid: Internal error occurred: failed calling webhook "x": context deadline exceeded',
    ],
)
def test_a_pod_that_is_refused_for_a_moment_is_waited_for(site: Site, why: str) -> None:
    kube, file = site
    kube.passing = [why] * 3
    said: list[str] = []
    made = pods(file, said).create(2)
    assert (len(made), said) == (2, [])
    kube.passing = [why] * 10_000  # for longer than a moment
    with pytest.raises(
        ProvisioningError, match=r"lets in no pod: .*(service account|modified|webh)"
    ):
        pods(file).create(1)


def test_a_quota_is_told_with_its_name_and_what_is_let_in_stays(site: Site) -> None:
    kube, file = site
    kube.room = 2
    said: list[str] = []
    made = pods(file, said).create(4)
    assert len(made) == 2
    assert sorted(m.name for m in made) == kube.alive() == kube.alive("secrets")
    assert "exceeded quota: few" in said[0]
    with pytest.raises(ProvisioningError, match="exceeded quota: few"):
        pods(file).create(1)
    assert len(kube.alive()) == 2


@pytest.mark.parametrize(
    ("what", "fault", "text"),
    [
        ("POST jobs", "quota", "the quota of the namespace is used up"),
        ("POST jobs", "403", "you need a role there"),
        ("POST namespaces", "403", "set kubernetes.namespace"),
        ("POST secrets", "403", "cannot POST secrets"),
        ("POST configmaps", "422", "Invalid value"),
        ("POST jobs", "401", "does not know you"),
    ],
)
def test_a_refusal_is_told_at_once_and_leaves_nothing(
    site: Site, what: str, fault: str, text: str
) -> None:
    kube, file = site
    kube.faults[what] = [fault]
    with pytest.raises(ProvisioningError, match=text):
        pods(file).create(1)
    assert [name for name in kube.left() if not name.startswith("namespaces")] == []
    assert sum(request == what for request in kube.requests) == 1


def test_a_namespace_that_is_not_there_is_named(site: Site) -> None:
    _, file = site
    with pytest.raises(ProvisioningError, match="there is no namespace team"):
        pods(file, namespace="team").create(1)


def test_events_that_may_not_be_read_are_done_without(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube, file = site
    monkeypatch.setattr(provisioning, "SETTLE_S", 1.0)
    kube.room, kube.faults["GET events"] = 0, ["403"] * 100
    (machine,) = pods(file).create(1)
    assert pods(file).observe()[0].state == "creating"
    assert machine.name in kube.alive()


# --- faults ---


@pytest.mark.parametrize(
    "faults", [["429"], ["500", "503"], ["reset"], ["away"], ["429", "reset", "500"]]
)
@pytest.mark.parametrize("what", ["POST jobs", "POST secrets", "POST configmaps", "GET pods"])
def test_a_busy_server_is_asked_again_and_makes_one_pod(
    site: Site, what: str, faults: list[str]
) -> None:
    kube, file = site
    kube.faults[what] = list(faults)
    (machine,) = pods(file).create(1)
    assert kube.alive() == kube.alive("secrets") == [machine.name]


def test_a_server_that_says_when_to_ask_again_is_asked_then(site: Site) -> None:
    kube, file = site
    kube.faults["GET jobs"] = ["429", "503"]
    one = pods(file)
    waits_s: list[float] = []
    one._api._pause = waits_s.append
    assert one.observe() == []
    assert waits_s == [RETRY_AFTER_S, 2.0]


def test_nothing_is_left_of_what_is_interrupted(site: Site) -> None:
    kube, file = site
    one = pods(file)
    turns = iter(range(100))

    def pause(seconds: float) -> None:
        if next(turns) == 3:
            raise KeyboardInterrupt

    one._pause = pause
    with pytest.raises(KeyboardInterrupt):
        one.create(6)
    assert [name for name in kube.left() if not name.startswith("namespaces")] == []


def test_a_list_that_got_too_old_is_begun_again(site: Site) -> None:
    kube, file = site
    made = pods(file).create(5)  # several pages
    kube.faults["GET jobs"] = ["", "410"]
    assert sorted(m.name for m in pods(file).observe()) == sorted(m.name for m in made)


def test_a_server_that_is_away_is_named_with_its_address(site: Site) -> None:
    kube, file = site
    kube.faults["GET jobs"] = ["away"] * 20
    with pytest.raises(ProvisioningError, match=r"Kubernetes at http://127.* does not answer"):
        pods(file).observe()


def test_what_answers_and_is_no_kubernetes_is_said(site: Site, tmp_path: Path) -> None:
    kube, file = site
    kube.handle = lambda *_: ["hello"]  # type: ignore[method-assign]
    with pytest.raises(ProvisioningError, match="is no Kubernetes"):
        pods(file).observe()


# --- which Kubernetes ---


def test_which_cluster_is_meant_is_said_by_file_and_context(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = site
    with pytest.raises(BadConfig, match=r"no context 'other' \(it has: fake\)"):
        pods(file, context="other")
    with pytest.raises(BadConfig, match=r"there is no file .*nowhere"):
        pods(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.write_text("clusters: 7\n")
    with pytest.raises(BadConfig, match="cannot tell which Kubernetes is meant"):
        pods(broken)
    empty = tmp_path / "empty"
    empty.write_text("apiVersion: v1\nclusters: []\ncontexts: []\nusers: []\n")
    monkeypatch.setenv("KUBECONFIG", f"{empty}:{file}")  # as kubectl has it
    config = parse({"name": "lab", "kubernetes": {"context": "fake"}})
    assert Kubernetes(config, ADDRESS, lambda name: None).observe() == []


def test_inside_a_pod_its_service_account_is_who_asks(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from burla.provisioning.kubernetes import api

    account = tmp_path / "account"
    account.mkdir()
    for name, text in {"token": "secret", "namespace": "team", "ca.crt": ""}.items():
        (account / name).write_text(text)
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = api._config(parse({"kubernetes": {"nodes": 1}}).kubernetes)
    assert found.cluster.server == "https://[fd00::1]:443"
    assert found.user is not None
    assert found.user.token_file == str(account / "token")


# --- what is ours ---


def test_two_clusters_of_one_name_in_one_namespace_do_not_see_each_other(site: Site) -> None:
    kube, file = site
    kube._add("namespaces", "", {"metadata": {"name": "team"}})
    mine = pods(file, namespace="team")
    theirs = pods(file, namespace="team", address=ADDRESS.replace("10.0.0.1", "10.0.0.2"))
    made, others = mine.create(2), theirs.create(1)
    for ignores in (False, True):
        kube.ignores_labels = ignores
        assert sorted(m.name for m in mine.observe()) == sorted(m.name for m in made)
    Fleet(mine, 0, 1.0, pause=lambda s: None).down(quiet)
    assert kube.alive() == kube.alive("secrets") == [others[0].name]
    assert "namespaces team" in kube.left()  # it was there before


def test_deleting_what_is_gone_is_no_error(site: Site) -> None:
    _, file = site
    one = pods(file)
    (machine,) = one.create(1)
    one.delete([machine])
    one.delete([machine, Machine("never-was", "x/y", "kubernetes")])
    assert one.observe() == []


def test_a_namespace_that_is_just_ending_is_waited_for(site: Site) -> None:
    kube, file = site
    one = pods(file)
    one.create(1)
    space = one._namespace
    kube.objects["namespaces", "", space]["status"]["phase"] = "Terminating"
    assert len(one.create(1)) == 1


# --- what a pod does ---


def test_a_pod_that_drains_has_no_longer_than_its_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube, file = site
    one = pods(file)
    one.create(1)
    (machine,) = one.observe()
    graces: list[int] = []
    monkeypatch.setattr(kube, "_end_pod", lambda pod, grace_s: graces.append(grace_s))
    for left_s in (100.0, -5.0):
        one.drain(replace(machine, expires_s=time.time() + left_s), 60.0)
    assert 95 <= graces[0] <= 100
    assert graces[1] == 11  # as long as tells it from a pod that is given up


def test_the_phase_of_a_node_is_what_kubernetes_says(site: Site) -> None:
    kube, file = site
    one = pods(file)
    (made,) = one.create(1)
    pod = kube.pod_of(made.name)
    status, metadata = pod["status"], pod["metadata"]

    def seen(**said: Any) -> tuple[str, str]:
        status.clear()
        status.update(said)
        (machine,) = one.observe()
        return machine.state, machine.why

    def waiting(reason: str, message: str = "m") -> list[dict[str, Any]]:
        about = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        return [about | {"state": {"waiting": {"reason": reason, "message": message}}}]

    no = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    ready = {"type": "Ready", "status": "True"}
    kube._look_at_pod = lambda pod: None  # type: ignore[method-assign]
    assert seen(phase="Pending") == ("creating", "")
    assert seen(phase="Pending", conditions=[no]) == (
        "creating",
        "Kubernetes says: 0/3 nodes are available",
    )
    state, why = seen(phase="Pending", containerStatuses=waiting("ErrImagePull"))
    assert (state, why) == ("creating", "Kubernetes says: ErrImagePull: m")
    state, why = seen(phase="Pending", containerStatuses=waiting("ImagePullBackOff"))
    assert state == "failed"
    assert "kubernetes.pull_secrets (ImagePullBackOff: m)" in why
    assert seen(phase="Running") == ("joining", "")
    assert seen(phase="Running", conditions=[ready]) == ("ready", "")
    assert one.observe()[0].says_so
    metadata |= {"deletionTimestamp": "2030-01-01T00:00:00Z", "deletionGracePeriodSeconds": 60}
    assert seen(phase="Running", conditions=[ready]) == ("ending", DRAINING)
    metadata["deletionGracePeriodSeconds"] = 10
    assert seen(phase="Running") == ("ending", "")
    state, why = seen(phase="Failed", reason="Evicted", message="disk pressure")
    assert (state, why) == ("ended", "Kubernetes says: Evicted: disk pressure")
    assert not one.observe()[0].says_so
    ended = waiting("x")[0] | {"state": {"terminated": {"exitCode": 1, "message": "no Python"}}}
    assert seen(phase="Failed", containerStatuses=[ended]) == ("failed", "no Python")
    killed = waiting("x")[0] | {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    assert "kubernetes.ram_gb" in seen(phase="Failed", containerStatuses=[killed])[1]
    assert seen(phase="Succeeded")[0] == "ended"


def test_what_has_ended_is_removed_by_kubernetes_with_all_that_it_had(site: Site) -> None:
    kube, file = site
    one = pods(file, run_h=1.0)
    one.create(3)
    kube.pass_time(3700)  # nobody of us is there any more
    assert [machine.state for machine in one.observe()] in ([], ["ended"] * 3)
    kube.pass_time(61)
    assert [name for name in kube.left() if not name.startswith("namespaces")] == []


# --- what callers who wait are told ---


def autoscaler(file: Path, told: Told, clock: list[float]) -> Autoscaler:
    return Autoscaler(
        "lab/kubernetes",
        pods(file, cpus=8),
        told.ask,
        Limits(3, None),
        "3.11",
        300.0,
        clock_s=lambda: clock[0],
    )


def test_callers_are_told_why_a_pod_is_not_placed(site: Site) -> None:
    kube, file = site
    kube.unschedulable = "0/3 nodes are available: 3 Insufficient cpu."
    told, clock = Told(wishes=[LONG]), [0.0]
    one = autoscaler(file, told, clock)
    one.make(one.look())
    one.look()
    assert told.asked[-1].doing == (
        "machines on their way: 3 (Kubernetes says: 0/3 nodes are available: 3 Insufficient cpu.)"
    )
    clock[0] = 301.0  # then they are given up, and asked for again later
    one.look()
    one.look()
    assert "no machine right now, trying again later" in told.asked[-1].doing
    assert "3 Insufficient cpu" in told.asked[-1].doing
    assert kube.alive() == []


def test_callers_are_told_that_an_image_cannot_be_had(site: Site) -> None:
    kube, file = site
    kube.waits_for = ("ImagePullBackOff", 'Back-off pulling image "python:3.11-slim"')
    told = Told(wishes=[LONG])
    one = autoscaler(file, told, [0.0])
    one.make(one.look())
    one.look()
    one.look()
    assert "the image cannot be had" in told.asked[-1].doing
    assert kube.alive() == []


def test_callers_are_told_of_a_quota(site: Site) -> None:
    kube, file = site
    kube.room = 0
    told = Told(wishes=[LONG])
    one = autoscaler(file, told, [0.0])
    one.make(one.look())
    one.look()
    assert "exceeded quota: few" in told.asked[-1].doing


# --- never anything left ---

FAULTS = [
    "409",
    "403",
    "quota",
    "410",
    "422",
    "429",
    "500",
    "reset",
    "away",
    "",
    "",
    "",
    "",
    "",
    "",
]
WHATS = [
    *("POST namespaces", "POST jobs", "POST secrets", "POST configmaps"),
    *("GET jobs", "GET pods", "GET events", "DELETE jobs", "DELETE pods"),
]


@pytest.mark.parametrize("seed", range(int(os.environ.get("BURLA_SEEDS", "25"))))
def test_after_any_faults_nothing_is_left_when_it_is_down_or_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(provisioning, "SETTLE_S", 1.0)
    random = Random(seed)
    with fake_kube(tmp_path) as (kube, file):
        kube._add("namespaces", "", {"metadata": {"name": "team"}})
        for killed in (False, True):  # all of ours; or it ends in good order
            for what in WHATS:
                kube.faults[what] = [random.choice(FAULTS) for _ in range(random.randrange(9))]
            kube.room = random.choice([0, 2, 1000])
            kube.unschedulable = random.choice(["", "", "no room"])
            one = pods(file, namespace=random.choice(["", "team"]))
            with suppress(ProvisioningError):
                one.create(random.randrange(1, 5))
            grown = autoscaler(file, Told(wishes=[LONG]), [0.0])
            with suppress(ProvisioningError):
                if orders := grown.look():
                    grown.make(orders)
            if killed:
                kube.pass_time(24 * 3600 + 60)
                kube.pass_time(120)
                kinds = {name.split()[0] for name in kube.left()}
                assert kinds <= {"namespaces", "events"}
            else:
                kube.faults.clear()
                for left in (one, grown.provisioner):
                    Fleet(left, 0, 1.0, pause=lambda seconds: None).down(quiet)
                kinds = {name for name in kube.left() if not name.startswith("events")}
                assert kinds == {"namespaces team"}


def test_the_kubeconfig_of_the_stand_in_is_one(tmp_path: Path) -> None:
    assert kubeconfig(tmp_path, "http://127.0.0.1:1").exists()
