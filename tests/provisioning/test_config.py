"""What a cluster is to be: read once, and refused in words if it cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replaced

from burla.provisioning import cli
from burla.provisioning.cluster import Cluster
from burla.provisioning.config import (
    ClusterConfig,
    NodeConfig,
    load,
    package_options,
    parse,
    write_packages,
)
from burla.provisioning.core.facts import Facts
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.core.steps import steps
from burla.provisioning.members import Installed, Local
from burla.provisioning.slurm.provisioner import Slurm
from burla.provisioning.state import State


def test_a_file_may_say_little_and_gives_its_name(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[ssh]\nhosts = ["a", "b"]\n')
    config = load(file)
    assert config.name == "lab"
    assert config.ssh.hosts == ("a", "b")


def test_whole_numbers_are_numbers() -> None:
    assert parse({"gce": {"run_h": 2}}).gce.run_h == 2.0


def test_more_hosts_are_added_once() -> None:
    assert ClusterConfig().with_hosts(("a", "b", "a")).ssh.hosts == ("a", "b")


def test_options_say_what_a_file_could() -> None:
    cloud = {"gce": True, "project": "p", "zones": ("a", "b"), "machine_types": ("t",)}
    one = ClusterConfig().with_options(cloud | {"bind": "tcp://h:1", "max_nodes": 4})
    table = {"nodes": 1, "project": "p", "zones": ["a", "b"], "machine_types": ["t"]}
    grow = {"max_nodes": 4, "provider": "gce"}
    assert one == parse({"bind": "tcp://h:1", "gce": table, "grow": grow})
    assert one.with_options(cloud | {"nodes": 0}).gce.nodes == 0
    assert one.with_options(cloud).gce.nodes == 1
    hpc = ClusterConfig().with_options({"slurm": True, "nodes": 3, "partition": "q"})
    assert hpc == parse({"slurm": {"nodes": 3, "partition": "q"}})
    pods = ClusterConfig().with_options({"kubernetes": True, "nodes": 2, "namespace": "team"})
    assert pods == parse({"kubernetes": {"nodes": 2, "namespace": "team"}})
    theirs = ClusterConfig().with_options({"provider": "x", "nodes": 2, "max_nodes": 3})
    assert theirs == parse(
        {"providers": {"x": {"nodes": 2}}, "grow": {"max_nodes": 3, "provider": "x"}}
    )
    assert (theirs.grows_by, theirs.provided) == ("x", ("x",))
    assert theirs.with_fewer("x").providers == {"x": {"nodes": 1}}
    with pytest.raises(
        BadConfig, match="--nodes needs --gce, --slurm, --kubernetes, --provider or --local"
    ):
        ClusterConfig().with_options({"nodes": 3})
    with pytest.raises(BadConfig, match="the project that pays"):
        ClusterConfig().with_options({"gce": True})


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"nane": "x"}, "nane is not a setting; known: name"),
        ({"ssh": {"host": []}}, "ssh.host is not a setting"),
        ({"grow": {"max_nodes": -1}}, "grow.max_nodes is -1: it must be 0 to"),
        ({"grow": {"provider": "aws"}}, "one of gce, slurm, kubernetes"),
        ({"grow": {"prices": {"n2": "1"}}}, "grow.prices.n2 is '1': it must be a number"),
        ({"grow": {"max_cost_per_h": -1}}, "grow.max_cost_per_h is -1.0: it must be 0 or more"),
        ({"grow": {"max_nodes": 1}}, "grow.provider is '': it must be one of gce"),
        ({"grow": {"max_nodes": 1}, "gce": {"project": "p"}}, "gce.zones"),
        ({"ssh": ["a"]}, "must be a table"),
        ({"ssh": {"hosts": "a"}}, "must be a list of texts"),
        ({"name": "a b"}, "letters, digits"),
        ({"log_level": "loud"}, "log_level is 'loud': it must be debug, info, warning, error"),
        ({"away_limit_s": 0.5}, "away_limit_s is 0.5: it must be 1 seconds or more"),
        ({"away_limit_s": float("nan")}, "away_limit_s is nan"),
        ({"python": "3"}, "e.g. 3.11"),
        ({"join_s": "long"}, "must be a whole number"),
        ({"local": {"nodes": True}}, "must be a whole number"),
        ({"local": {"nodes": 100_000}}, "0 to 1000"),
        ({"gce": {"nodes": 1}}, "the project that pays"),
        ({"gce": {"nodes": 1, "project": "p"}}, "one zone or more"),
        ({"gce": {"spot": "yes"}}, "gce.spot is 'yes'"),
        ({"gce": {"run_h": 0}}, "up to 2880 h"),
        ({"gce": {"boot_s": float("inf")}}, "gce.boot_s is inf: it must be more than 0 seconds"),
        ({"kubernetes": {"namespace": "My Team"}}, "kubernetes.namespace is 'My Team'"),
        ({"kubernetes": {"tolerations": ["a=b:Never"]}}, r"KEY\[=VALUE\]\[:EFFECT\]"),
        ({"kubernetes": {"cpus": 0}}, "kubernetes.cpus is 0: it must be 1 to"),
        ({"kubernetes": {"ram_gb": 0}}, "kubernetes.ram_gb is 0.0: it must be 0.1 or more"),
        ({"kubernetes": {"run_h": 0}}, "kubernetes.run_h is 0.0: it must be up to"),
        ({"kubernetes": {"pod": []}}, r"a table, \[kubernetes.pod\]"),
        ({"providers": {"gce": {}}}, r"\[gce\]: that one is part of burla"),
        ({"providers": {"x": {"nodes": True}}}, "providers.x.nodes is True: it must be 0 to 1000"),
        ({"providers": {"x": {"boot_s": "1"}}}, "providers.x.boot_s is '1'"),
        ({"providers": {"x": {"spare": 1}}}, "providers.x.spare is 1: it must be true or false"),
        (
            {"quotas": {"users": {"a.b": {"jobs": 0}}}},
            r"quotas.users.a.b.jobs is 0: .* number >= 1",
        ),
        ({"quotas": {"users": {"a": {}, "b": 5}}}, "quotas.users.b is 5: it must be a table"),
        ({"quotas": {"users": {"b": {"job": 5}}}}, "known: jobs, inputs, bytes, opens"),
        ({"quotas": {"everybody": {"jobs": 5}}}, "told apart by their keys"),
        ({"ssh": {"hosts": ["a", 3]}}, r"ssh.hosts\[1\] is 3: it must be a text"),
    ],
)
def test_what_cannot_be_is_refused_in_words(said: dict[str, object], text: str) -> None:
    with pytest.raises(BadConfig, match=text):
        parse(said)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("name = ")
    with pytest.raises(BadConfig, match=r"x\.toml cannot be read as TOML"):
        load(file)


def test_how_much_is_logged_is_said_to_each_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scheduler, nodelets here, by SSH and by Slurm, and the autoscaler."""
    monkeypatch.setenv("BURLA_STATE_DIR", str(tmp_path))
    quiet = {"local": {"nodes": 1}, "ssh": {"hosts": ["h"]}, "slurm": {"nodes": 1}}
    lines = {}
    for said in ({}, {"log_level": "debug", "away_limit_s": float("inf")}):
        cluster = Cluster(State(parse({"bind": "tcp://10.0.0.1:7270"} | quiet | said)))
        local, host = cluster.members()
        assert isinstance(local, Local)
        assert isinstance(host, Installed)
        slurm = cluster.fleets()["slurm"].provisioner
        assert isinstance(slurm, Slurm)
        monkeypatch.setattr(slurm, "_tokens", lambda count: None)
        service = next(
            s for s in steps(Facts(python="p", free_kb=1 << 30), host.wanted) if s.name == "service"
        )
        words = [
            " ".join(cluster.head._scheduler_line("tcp://10.0.0.1:7270")),
            " ".join(local._line()),
            service.arguments,
            slurm._script(1),
        ]
        lines[bool(said)] = words
        assert ["--log-level debug" in line for line in words] == [bool(said)] * 4
        assert ("--away-limit inf" in words[0]) == bool(said)
    assert lines[False] != lines[True]
    assert isinstance(host, Installed)
    assert host.wanted.settings() != replace(host.wanted, log_level="").settings()


def test_a_shared_file_system_is_outside_of_what_each_job_has_for_itself() -> None:
    assert parse({"shared": "/mnt/data"}).shared == "/mnt/data"
    for path in ("mnt/data", "/", "/tmp/data", "/dev/shm", "/x" * 200, "/a\nb"):
        with pytest.raises(BadConfig, match=r"shared is .*: it must be an absolute path"):
            parse({"shared": path})


def test_packages_of_nodes_are_listed_there_or_in_a_file_beside(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[node]\npackages = ["numpy", "pandas>=2"]\n')
    assert load(file).node.packages == ("numpy", "pandas>=2")
    (tmp_path / "requirements.txt").write_text("polars==1.0  # fast\n")
    file.write_text('[node]\npackages = "requirements.txt"\n')
    assert load(file).node.packages == ("polars==1.0",)
    file.write_text('[node]\npackages = "none.txt"\n')
    with pytest.raises(BadConfig, match=r"lab\.toml: node\.packages: .*none\.txt"):
        load(file)
    for wrong in ("git+https://x/y", "-e .", "a @ file:///a"):
        with pytest.raises(BadConfig, match=r"node\.packages: .*is no name of a package"):
            parse({"node": {"packages": [wrong]}})
    (tmp_path / "requirements.txt").write_text(f"polars==1.0 --hash=sha256:{'0' * 64}\n")
    file.write_text('[node]\npackages = "requirements.txt"\n')
    with pytest.raises(BadConfig, match=r"'polars==1.0' has --hash"):
        load(file)


def test_other_packages_make_machines_of_providers_stale_and_versions_found_do_not() -> None:
    one, other = (parse({"node": {"packages": [name]}}) for name in ("numpy", "polars"))
    pinned = parse({"node": {"packages": ["numpy"], "pins": ["numpy==2.1"]}})
    assert len({ClusterConfig().stamp, one.stamp, other.stamp}) == 3
    assert one.stamp == pinned.stamp
    assert pinned.node.given() == ("numpy==2.1",)


def test_nodelets_of_this_file_system_are_told_of_packages(tmp_path: Path) -> None:
    config = parse({"index": "https://i/simple", "node": {"packages": ["numpy", "polars"]}})
    write_packages(config, tmp_path)
    write_packages(replaced(config, node=NodeConfig(("numpy",))), tmp_path)
    write_packages(config, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.read_text() == "numpy\npolars\n"
    told = ["--packages", str(file), "--index", "https://i/simple"]
    assert package_options(config, tmp_path) == told
    assert package_options(ClusterConfig(), tmp_path) == []
    house = replaced(config, wheelhouse="/house")
    assert package_options(house, tmp_path)[2:] == ["--wheelhouse", "/house"]


def test_nodes_on_this_machine_run_the_python_that_makes_them(tmp_path: Path) -> None:
    """Another one in the file would be passed over, and callers with it be refused for ever."""
    file = tmp_path / "lab.toml"
    file.write_text('name = "python-lab"\npython = "3.99"\n[local]\nnodes = 1\n')
    with pytest.raises(BadConfig, match=r"`python3.99 -m burla up .*lab\.toml`, or leave python"):
        cli.up(file, None, (), 0, {}, False, lambda *words: "", lambda: None)
    with pytest.raises(BadConfig, match=r"python is '3.99': .* `python3.99 -m burla up`, or leave"):
        cli.up(None, "lab", (), 1, {"python": "3.99"}, False, lambda *words: "", lambda: None)


def test_an_option_says_which_python_other_nodes_have() -> None:
    config = ClusterConfig().with_options({"python": "3.99"})
    assert config.python == "3.99"
    assert config.stamp != ClusterConfig().stamp


def test_a_cluster_without_an_address_is_not_stored_as_the_one_in_use() -> None:
    """An empty one in the settings would be an error of every script that needs none."""
    stored = []

    def adopt(address: str, before: str) -> str:
        stored.append(address)
        return "stored"

    assert cli._advice("", "", adopt) == ""
    assert cli._advice("ipc:///s", "", adopt) == "stored.\nElsewhere: export BURLA_CLUSTER=ipc:///s"
    assert stored == ["ipc:///s"]
