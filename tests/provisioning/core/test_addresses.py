"""Where a scheduler listens and is reached, from what the user set and what it said itself."""

import pytest

from burla.provisioning.core.addresses import host_names, is_loopback, split_target
from burla.provisioning.core.machines import BadConfig
from burla.provisioning.head import bind_of, reached_at

KEY = "ab" * 32
HERE = f"burla://10.0.0.1:7270?key={KEY}"


@pytest.mark.parametrize(
    ("wanted", "before", "bind"),
    [
        ("tcp://10.0.0.1:7270", "", "tcp://10.0.0.1:7270"),
        ("tcp://10.0.0.1:0", "", "tcp://10.0.0.1:0"),
        ("tcp://10.0.0.1:0", HERE, "tcp://10.0.0.1:7270"),  # nodes find it again
        ("tcp://0.0.0.0:0", HERE, "tcp://0.0.0.0:7270"),
        ("tcp://10.0.0.1:1", HERE, "tcp://10.0.0.1:1"),  # as the user says now
        ("ipc:///run/s", HERE, "ipc:///run/s"),
        ("tcp://10.0.0.1:0", "ipc:///run/s", "tcp://10.0.0.1:0"),
    ],
)
def test_where_it_listens(wanted: str, before: str, bind: str) -> None:
    assert bind_of(wanted, before) == bind


@pytest.mark.parametrize(
    ("wanted", "said", "address"),
    [
        ("", HERE, HERE),
        ("", "ipc:///run/s", "ipc:///run/s"),
        ("tcp://head:1", HERE, f"burla://head:1?key={KEY}"),
        (f"burla://head:1?key={KEY}", HERE, f"burla://head:1?key={KEY}"),
        (HERE, "", HERE),
    ],
)
def test_where_it_is_reached(wanted: str, said: str, address: str) -> None:
    assert reached_at(wanted, said) == address


@pytest.mark.parametrize("wanted", ["nonsense", "tcp://h:1", "burla://h:1", "tcp://h h:1"])
def test_what_is_no_address_is_said(wanted: str) -> None:
    with pytest.raises(BadConfig, match=r"scheduler: .* is not the address"):
        reached_at(wanted, "")
    with pytest.raises(BadConfig, match="bind: "):
        bind_of("tcp://nowhere", "")


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("h", ("", "h", None)),
        ("u@h:22", ("u", "h", 22)),
        ("u@[::1]:2", ("u", "::1", 2)),
        ("fe80::1", ("", "fe80::1", None)),
    ],
)
def test_a_target_is_taken_apart(target: str, parts: tuple[str, str, int | None]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["", "u@", "h:", "h:x", "h:70000", "-oProxyCommand=x"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(BadConfig):
        split_target(target)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["root@node1", "node2:23"], ["node1", "node2"]),
        (["a@h", "b@h", "a@h:23"], ["h", "h-b", "h-23"]),
        (["u@[fe80::1]:22", "::1"], ["fe80--1", "1"]),
    ],
)
def test_nodes_are_called_as_their_hosts(targets: list[str], names: list[str]) -> None:
    assert list(host_names(targets)) == names


@pytest.mark.parametrize("target", ["a b", "$(x)", "h:x"])
def test_what_is_no_host_is_refused_before_it_is_kept(target: str) -> None:
    with pytest.raises(BadConfig, match="is not a host"):
        host_names(["node1", target])


@pytest.mark.parametrize(
    ("bind", "is_it"),
    [
        ("tcp://127.0.0.1:7270", True),
        ("tcp://localhost:0", True),
        ("tcp://[::1]:0", True),
        ("tcp://10.0.0.1:0", False),
        ("ipc:///127.0.0.1:1", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(bind: str, is_it: bool) -> None:
    assert is_loopback(bind) is is_it
