import os

import pytest

from burla.transport.addresses import (
    IPC_PATH_BYTES_MAX,
    AddressError,
    Endpoint,
    bind_address,
    connect_address,
    full_address,
    ipc_path,
    publisher_endpoint,
    take_apart,
)

KEY = "ab" * 32


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:7270",
        "head.cluster.example:1",
        "my_host:65535",
        "[::1]:7270",
        "ipc:///run/burla/s",
        "ipc:///tmp/with a space/ü",
    ],
)
def test_an_address_stays_as_it_is(address: str) -> None:
    if address.startswith("ipc://"):
        assert connect_address(address) == bind_address(address) == address
        return
    assert bind_address(f"tcp://{address}") == f"tcp://{address}"
    whole = f"burla://{address}?key={KEY}"
    assert connect_address(whole) == whole == full_address(f"tcp://{address}", bytes.fromhex(KEY))
    assert take_apart(whole) == Endpoint(f"tcp://{address}", bytes.fromhex(KEY))


def test_blanks_around_an_address_and_zeros_before_a_port_do_no_harm() -> None:
    assert connect_address(f" burla://h:0080?key={KEY.upper()}\n") == f"burla://h:80?key={KEY}"


def test_an_address_without_a_key_is_no_address() -> None:
    with pytest.raises(AddressError, match="tcp:// goes without keys"):
        connect_address("tcp://127.0.0.1:7270")
    for rest in (
        "",
        "?",
        "?key=",
        f"?key={KEY[1:]}",
        f"?key={KEY}0",
        f"?kye={KEY}",
        "?key=" + "g" * 64,
    ):
        with pytest.raises(AddressError, match="64 digits"):
            connect_address(f"burla://127.0.0.1:7270{rest}")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"burla://h:1?key={KEY[1:]}", "the 64 digits of a key, but with 63"),
        (f"burla://h:1?key={KEY}/", "but with 65"),
        (f"burla://h:1?key=O{KEY[1:]}", "but with 'O' among them"),
        ("burla://h:1", "the 64 digits of a key"),
        (f"burla://h?key={KEY}", "there is no :PORT behind 'h'"),
        (f'"burla://h:1?key={KEY}"', "quotes are no part"),
        (f" 'burla://h:1?key={KEY}'", "quotes are no part"),
        ("", "begins with neither"),
    ],
)
def test_what_is_misspelt_in_an_address_is_said(address: str, why: str) -> None:
    with pytest.raises(AddressError) as caught:
        take_apart(address)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("told", "scheduler", "used"),
    [
        ("tcp://0.0.0.0:2", "tcp://h:1", "tcp://h:2"),
        ("tcp://[::]:2", "tcp://[::1]:1", "tcp://[::1]:2"),
        ("tcp://10.0.0.1:2", "tcp://h:1", "tcp://10.0.0.1:2"),
        ("ipc:///tmp/s.pub", "ipc:///tmp/s", "ipc:///tmp/s.pub"),
    ],
)
def test_output_comes_from_where_the_scheduler_was_found(
    told: str, scheduler: str, used: str
) -> None:
    assert publisher_endpoint(told, scheduler) == used


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
    with pytest.raises(AddressError, match="'0' is not a port from 1 to 65535"):
        connect_address(f"burla://127.0.0.1:0?key={KEY}")


def test_localhost_becomes_a_number_where_names_are_not_resolved() -> None:
    assert bind_address("tcp://localhost:7270") == "tcp://127.0.0.1:7270"
    whole = f"burla://localhost:7270?key={KEY}"
    assert connect_address(whole) == whole


def test_the_path_of_an_address() -> None:
    assert ipc_path("ipc:///tmp/s") == "/tmp/s"
    assert ipc_path("tcp://h:1") is None
