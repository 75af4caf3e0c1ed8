"""Where a scheduler listens and is reached, from what the user set and what it said itself."""

import pytest

from burla.provisioning.head import bind_of, reached_at
from burla.provisioning.machines import BadConfig

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
