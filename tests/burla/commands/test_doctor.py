"""`burla doctor`: each thing that can be wrong is found, and no other is blamed."""

import resource
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from burla.commands import doctor
from burla.commands.doctor import Check
from burla.config import settings_path, store_cluster
from burla.protocol import VERSION, messages as m
from burla.transport.keys import load_or_make_pair

KEY = "ab" * 32


class Index(BaseHTTPRequestHandler):
    """A package index, whose clock is that of the machine unless told otherwise."""

    date = ""

    def do_HEAD(self) -> None:  # so it is called
        self.send_response_only(200)
        self.send_header("Date", self.date or self.date_time_string())
        self.end_headers()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a user with no settings, and an index on this machine."""
    for name in ("BURLA_CONFIG_DIR", "BURLA_STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("BURLA_CLUSTER", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Index)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def looked(named: str | None = None, tier: str = "uid") -> dict[str, Check]:
    """Return what is found, by name; of several of one name the worst."""
    found = doctor.run(named, lambda address: (tier, ""), lambda address: [])
    order = (doctor.PASS, doctor.WARN, doctor.FAIL)
    return {
        check.name: check for check in sorted(found, key=lambda check: order.index(check.state))
    }


def bad(found: dict[str, Check]) -> list[str]:
    for check in found.values():
        assert bool(check.remedy) == (check.state != doctor.PASS), check
    return [name for name, check in found.items() if check.state == doctor.FAIL]


def test_a_machine_without_a_cluster_is_well() -> None:
    found = looked()
    assert bad(found) == []
    assert found["index"].state == doctor.PASS
    assert set(found) == {
        *("address", "key modes", "clock", "descriptors", "disk", "isolation", "index"),
    }
    assert "secret" not in found["index"].text


@pytest.mark.parametrize("address", ["nonsense", "tcp://h:1", ""])
def test_what_is_no_address_fails_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURLA_CLUSTER", address)
    assert bad(looked()) == ["address"]


def test_what_is_said_of_an_address_is_what_mends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`burla login` writes the settings file: it helps only where nothing goes before that."""
    file = Path(str(settings_path()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("clustre = 1\n")
    assert "remove it and run `burla login" in looked()["address"].remedy
    file.unlink()
    store_cluster(f"burla://h:1?key={KEY}")
    file.write_text("cluster = 7\n")
    assert looked()["address"].remedy == "run `burla login ADDRESS`"
    store_cluster(f"burla://h:1?key={KEY}")
    monkeypatch.setenv("BURLA_CLUSTER", "nonsense")
    assert "`unset BURLA_CLUSTER`" in looked()["address"].remedy
    assert looked("nonsense")["address"].remedy == "pass another --cluster"


def test_shared_memory_that_is_small_is_made_larger() -> None:
    assert "--shm-size" in doctor._disk_remedy(Path("/dev/shm"))
    assert doctor._disk_remedy(Path("/tmp")) == "make room there"


def test_names_and_ports_that_lead_nowhere_are_told_apart(home: Path) -> None:
    assert bad(looked(f"burla://no-such-host.invalid:1?key={KEY}")) == ["name"]
    assert bad(looked(f"ipc://{home}/nowhere")) == ["name"]
    with socket.socket() as taken:  # bound, and does not listen
        taken.bind(("127.0.0.1", 0))
        found = looked(f"burla://127.0.0.1:{taken.getsockname()[1]}?key={KEY}")
    assert bad(found) == ["port"]
    assert "burla up" in found["port"].remedy
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{home}/s")
    assert bad(looked(f"ipc://{home}/s")) == ["port"]


def test_what_is_no_scheduler_fails_at_the_handshake(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"burla://127.0.0.1:{other.getsockname()[1]}?key={KEY}"
        found = looked(address)
        assert bad(found) == ["handshake"]
        assert "you have no key yet" in found["handshake"].text
        load_or_make_pair(f"{home}/BURLA_CONFIG_DIR/user.key", "a test")
        assert "no answer" in looked(address)["handshake"].text


def test_a_key_that_others_can_read_is_named(home: Path) -> None:
    path = home / "BURLA_CONFIG_DIR/user.key"
    load_or_make_pair(str(path), "a test")
    path.chmod(0o644)
    found = looked()
    assert bad(found) == ["key modes"]
    assert str(path) in found["key modes"].text


def test_an_index_that_is_not_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:1/simple")
    found = looked()
    assert bad(found) == []
    assert found["index"].state == doctor.WARN
    assert "secret" not in found["index"].text
    assert "--wheelhouse auto" in found["index"].remedy


def test_a_wrong_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "date", "Wed, 01 Jan 2020 00:00:00 GMT")
    assert bad(looked()) == ["clock"]


@pytest.mark.parametrize(
    ("off_s", "state", "words"),
    [
        (0.0, doctor.PASS, "it is that of the scheduler's machine"),
        (90.0, doctor.WARN, "it is 90 s ahead of that of the scheduler's machine"),
        (-900.0, doctor.FAIL, "it is 900 s behind that of the scheduler's machine"),
    ],
)
def test_the_clock_is_compared_with_that_of_the_scheduler(
    off_s: float, state: str, words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index, whose clock is this machine's, does not make up for it."""
    welcome = m.Welcome(bytes(16), VERSION, "ipc://p", time_s=1e9 - off_s)
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: 1e9))
    monkeypatch.setattr(Index, "date", "Sun, 09 Sep 2001 01:46:40 GMT")
    monkeypatch.setattr(doctor, "greet", lambda *asked: welcome)
    monkeypatch.setattr(doctor, "ask", lambda *asked: m.Nodes(()))
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(f"{home}/s")
        there.listen()
        found = looked(f"ipc://{home}/s")["clock"]
    assert (found.state, found.text) == (state, words if state != doctor.PASS else found.text)
    checks = doctor._clock(doctor._Clocks(off_s, 0.0))
    assert words in [check.text for check in checks]


def test_a_scheduler_of_before_does_not_tell_its_clock(home: Path) -> None:
    """It is looked at the index only, as if there was no cluster."""
    (check,) = doctor._clock(doctor._Clocks(None, 400.0))
    assert (check.state, "package index" in check.text) == (doctor.FAIL, True)


def test_limits_disks_and_isolation_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (64, 64))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    found = looked(tier="process")
    assert sorted(bad(found)) == ["descriptors", "disk"]
    assert found["isolation"].state == doctor.WARN


def node(name: str, python: str, state: m.NodeState = m.NodeState.FREE) -> m.NodeStatus:
    return m.NodeStatus(name, "uid", 1, 1, python, state, "")


def test_versions_and_lost_nodes_are_told() -> None:
    alien = (node("a", "2.7"),)
    assert doctor._versions(VERSION, alien).state == doctor.FAIL
    assert doctor._versions("0.0.1", ()).state == doctor.WARN
    assert doctor._versions(VERSION, ()).state == doctor.PASS
    lost = node("b", "2.7", m.NodeState.LOST)
    assert doctor._nodes(()).state == doctor.FAIL
    assert doctor._nodes((lost,)).state == doctor.FAIL
    assert doctor._nodes((*alien, lost)) == Check(
        "nodes",
        "warn",
        "1 are there, 1 lost: b",
        "look at `burla nodes list`; `burla up` mends nodes",
    )
