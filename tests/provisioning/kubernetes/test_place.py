"""Which Kubernetes a cluster's pods are in: found once, and kept when kubectl looks elsewhere."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fake_kube import FakeKube, fake_kube

from burla.provisioning import fleet, state
from burla.provisioning.cluster import Cluster, refuse_out_of_reach
from burla.provisioning.config import ClusterConfig, parse
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.install.pins import Requirements
from burla.provisioning.kubernetes import api, provisioner as provisioning
from burla.provisioning.kubernetes.provisioner import Kubernetes
from burla.provisioning.provider_settings import IN_CLUSTER, KubernetesConfig
from burla.provisioning.providers import settled
from burla.provisioning.state import State

pytestmark = pytest.mark.usefixtures("loopback_only")
ADDRESS = f"burla://10.0.0.1:7270?key={'0' * 64}"
Site = tuple[FakeKube, Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    found = Requirements("burla --hash=sha256:0\n")
    monkeypatch.setattr(provisioning, "pinned_for_node", lambda python, index: found)
    monkeypatch.setattr(provisioning, "xz_for_node", lambda: b"wheel")
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path / "state"))
    with fake_kube(tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made[1]))
        yield made


def config(**told: object) -> ClusterConfig:
    return parse({"name": "lab", "kubernetes": {"nodes": 1, **told}})


def elsewhere(file: Path) -> Path:
    """Return a kubeconfig whose current context is another one."""
    other = file.with_name("elsewhere")
    text = file.read_text().replace("current-context: fake", "current-context: other")
    text = text.replace("contexts: [", "contexts: [{name: other, context: {cluster: fake}}, ")
    other.write_text(text)
    return other


def test_which_kubernetes_is_meant_is_found_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = site
    first = settled(config())
    assert first.kubernetes.place == (str(file), "fake", "")
    monkeypatch.setenv("KUBECONFIG", str(elsewhere(file)))  # kubectl is used for something else
    again = config().kubernetes.placed_as(first.kubernetes)  # `burla up` with the same file
    assert again == first.kubernetes
    assert settled(first) == first
    assert settled(config()).kubernetes.context == "other"


def test_a_place_that_is_named_goes_before_the_known_one() -> None:
    known = KubernetesConfig(kubeconfig="/a", context="x")
    assert KubernetesConfig(context="x").placed_as(known) == known
    assert KubernetesConfig(kubeconfig="/a").placed_as(known) == known
    for other in (KubernetesConfig(context="y"), KubernetesConfig(kubeconfig="/b")):
        assert other.placed_as(known) == other
    assert (
        KubernetesConfig(kubeconfig="~/k")
        .placed_as(KubernetesConfig(kubeconfig=str(Path("~/k").expanduser()), context="x"))
        .context
        == "x"
    )


@pytest.mark.parametrize("told", [{"context": "other"}, {"namespace": "team"}, None])
def test_pods_that_would_not_be_found_again_are_not_left(
    site: Site, monkeypatch: pytest.MonkeyPatch, told: dict[str, str] | None
) -> None:
    kube, file = site
    monkeypatch.setenv("KUBECONFIG", str(elsewhere(file)))
    before = settled(config(context="fake"))
    pods = Kubernetes(before, ADDRESS, lambda name: None, pause=lambda seconds: None)
    (pod,) = pods.create(1)
    now = parse({"name": "lab"}) if told is None else settled(config(**{"context": "fake"} | told))
    cluster = Cluster(State(now, ADDRESS), before=before)
    with pytest.raises(BadConfig, match=rf"nobody would find 1 machines.*{pod.name}.*burla down"):
        cluster._refuse_to_abandon()
    pods.delete([pod])
    cluster._refuse_to_abandon()
    assert kube.left() == []  # not even the namespace


@pytest.mark.parametrize("forget", [False, True])
def test_a_kubernetes_that_is_no_more_keeps_nobody_from_forgetting_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    kube, _ = site
    monkeypatch.setattr(fleet, "END_S", 0.0)
    known = State(settled(config()), ADDRESS)
    state.write(known)
    kube.faults["GET jobs"] = ["away"] * 100
    cluster = Cluster(known, pause=lambda seconds: None)
    (result,) = cluster.down(lambda name, phase: None, forget=forget)
    assert "does not answer" in result.why
    assert (state.read("lab") is None) == forget


def test_a_place_that_is_not_known_on_this_machine_keeps_nobody_from_another(site: Site) -> None:
    kube, _ = site
    before = config(kubeconfig="/nowhere", context="fake")  # as `burla restore` found it
    Cluster(State(settled(config()), ADDRESS), before=before)._refuse_to_abandon()
    assert kube.requests == []


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:7270", "tcp://[::1]:0", "ipc:///tmp/s"])
def test_a_scheduler_that_no_pod_can_reach_is_said_before_pods_are_made(bind: str) -> None:
    told = {"bind": bind, "kubernetes": {"nodes": 1}}
    with pytest.raises(BadConfig, match=r"which only this machine can reach, and no pod"):
        refuse_out_of_reach(parse(told))
    refuse_out_of_reach(parse({"bind": bind, "local": {"nodes": 1}}))
    refuse_out_of_reach(parse(told | {"scheduler": "tcp://head:7270"}))  # forwarded to there
    refuse_out_of_reach(parse(told | {"bind": "tcp://10.0.0.1:7270"}))
    told["kubernetes"] = {"nodes": 1, "pod": {"hostNetwork": True}}
    refuse_out_of_reach(parse(told))


def test_a_context_whose_user_is_not_there_is_named(site: Site) -> None:
    _, file = site
    file.write_text(file.read_text().replace("user: ann", "user: bob"))
    with pytest.raises(BadConfig, match=r"the context 'fake' names 'bob', of which nothing"):
        settled(config())


def test_inside_a_pod_kubeconfig_goes_before_the_service_account(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    for name, text in {"token": "secret", "namespace": "team"}.items():
        (account / name).write_text(text)
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.9")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert api._config(KubernetesConfig()).context_name == "fake"
    inside = "https://10.0.0.9:443"
    assert api._config(KubernetesConfig(context=IN_CLUSTER)).cluster.server == inside
    monkeypatch.delenv("KUBECONFIG")
    found = api._config(KubernetesConfig())
    assert found.cluster.server == inside
    assert api._settled(KubernetesConfig(), found).context == IN_CLUSTER


def test_a_server_that_is_not_who_it_should_be_is_not_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Kubernetes(config(), ADDRESS, lambda name: None)
    tries = []

    def refuse(*_: object, **__: object) -> None:
        tries.append(1)
        try:
            raise ssl.SSLCertVerificationError("certificate verify failed: self-signed")
        except ssl.SSLError as error:
            raise httpx2.ConnectError(str(error)) from error

    monkeypatch.setattr(one._api.client, "list", refuse)
    with pytest.raises(api.Refused, match=r"does not answer: .*self-signed"):
        one.observe()
    assert len(tries) == 1
