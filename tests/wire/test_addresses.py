import os

import pytest

from burla.wire.addresses import (
    IPC_PATH_BYTES_MAX,
    AddressError,
    bind_address,
    connect_address,
    ipc_path,
    stays_on_this_machine,
)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:7270",
        "tcp://head.cluster.example:1",
        "tcp://my_host:65535",
        "tcp://[::1]:7270",
        "ipc:///run/burla/s",
        "ipc:///tmp/with a space/ü",
    ],
)
def test_an_address_stays_as_it_is(address: str) -> None:
    assert connect_address(address) == address
    assert bind_address(address) == address


def test_blanks_around_an_address_and_zeros_before_a_port_do_no_harm() -> None:
    assert connect_address(" tcp://h:0080\n") == "tcp://h:80"


def test_a_relative_path_means_the_working_directory_of_now() -> None:
    assert connect_address("ipc://s") == f"ipc://{os.getcwd()}/s"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.0.0.1:7270",
        "tcp:/127.0.0.1:7270",
        "tcp//127.0.0.1:7270",
        "http://127.0.0.1:7270",
        "TCP://127.0.0.1:7270",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:99999999999999",
        "tcp://127.0.0.1:٣",
        "tcp://:7270",
        "tcp://*:7270",
        "tcp://a b:7270",
        "tcp://::1:7270",
        "tcp://[::g]:7270",
        "tcp://127.0.0.1:7270/path",
        "tcp://user@host:7270",
        "ipc://",
        "ipc://*",
        "ipc://@abstract",
        "ipc:///tmp/",
        "ipc:///tmp/a\0b",
        "ipc:///" + "x" * IPC_PATH_BYTES_MAX,
        "inproc://x",
    ],
)
def test_anything_else_is_refused_and_repeated(text: str) -> None:
    for check in (connect_address, bind_address):
        with pytest.raises(AddressError) as caught:
            check(text)
        assert repr(text) in str(caught.value)


def test_only_a_listener_may_leave_the_port_open() -> None:
    assert bind_address("tcp://127.0.0.1:0") == "tcp://127.0.0.1:0"
    with pytest.raises(AddressError, match="'0' is no port from 1 to 65535"):
        connect_address("tcp://127.0.0.1:0")


def test_localhost_becomes_a_number_where_names_are_not_resolved() -> None:
    assert bind_address("tcp://localhost:7270") == "tcp://127.0.0.1:7270"
    assert connect_address("tcp://localhost:7270") == "tcp://localhost:7270"


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("ipc:///tmp/s", True),
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.9.9.9:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("tcp://0.0.0.0:1", False),
        ("tcp://[::]:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://localhost.example:1", False),
    ],
)
def test_what_others_can_reach(address: str, stays: bool) -> None:
    assert stays_on_this_machine(address) is stays


def test_the_path_of_an_address() -> None:
    assert ipc_path("ipc:///tmp/s") == "/tmp/s"
    assert ipc_path("tcp://h:1") is None
