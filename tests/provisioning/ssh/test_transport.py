"""The SSH transport against a real OpenSSH server: keys, hosts, agents, jumps, and cut lines."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hosts import Host, Hosts, make_key, run
from seen import in_background
from sshagent import agent
from waiting import wait_until

from burla.provisioning.core.machines import ConnectionLost, ProvisioningError, Unreachable
from burla.provisioning.ssh.known_hosts import HostKeyRefused, matches
from burla.provisioning.ssh.transport import SshSettings, connect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


@pytest.fixture(scope="module")
def host(hosts: Hosts) -> Host:
    return hosts.add()


@pytest.fixture
def home(hosts: Hosts, host: Host, tmp_path: Path) -> Path:
    """Return a ~/.ssh of the test's own, that knows all hosts and has no keys."""
    directory = tmp_path / "ssh"
    directory.mkdir(mode=0o700)
    (directory / "known_hosts").write_text((hosts.ssh / "known_hosts").read_text())
    return directory


def hostname(settings: SshSettings, target: str) -> str:
    with closing(connect(settings, target)) as transport:
        return transport.run("hostname", timeout_s=10).output.strip()


# --- commands ---


def test_a_command_gets_its_input_and_says_how_it_ended(hosts: Hosts, host: Host) -> None:
    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        assert transport.run("wc -c", b"x" * 3_000_000, timeout_s=20).output.strip() == "3000000"
        assert transport.run("echo out; echo err >&2; exit 3", timeout_s=10) == (3, "out\nerr\n")
        assert transport.run("head -c 4", b"word" * 1_000_000, timeout_s=10) == (0, "word")


def test_of_much_output_the_end_is_kept(hosts: Hosts, host: Host) -> None:
    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        said = transport.run("seq 100000", timeout_s=20).output
    assert said.endswith("\n99999\n100000\n")
    assert len(said) < 200_000


def test_a_command_that_does_not_end_is_given_up(hosts: Hosts, host: Host) -> None:
    with (
        closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport,
        pytest.raises(ConnectionLost, match=r"within 1 s"),
    ):
        transport.run("echo begun; sleep 100", timeout_s=1)
    host.call("pkill sleep || true")


def test_a_line_that_is_cut_is_told_from_a_command_that_failed(hosts: Hosts, host: Host) -> None:
    with (
        closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport,
        in_background(lambda: transport.run("exec sleep 99", timeout_s=60)) as result,
    ):
        wait_until(lambda: any("sleep" in p.name() for p in host.processes()), "it runs")
        host.cut()
        with pytest.raises(ConnectionLost, match="run the same command again"):
            result()
    host.call("pkill sleep || true")


def test_nobody_there_is_told_with_the_address(hosts: Hosts) -> None:
    with pytest.raises(Unreachable, match=r"10\.213\.7\.1:22"):
        connect(SshSettings(hosts.ssh), "root@10.213.7.1")


# --- the host's key ---


def test_an_unknown_host_is_refused_and_the_command_it_names_accepts_it(
    hosts: Hosts, host: Host, home: Path
) -> None:
    make_known(hosts, home)
    (home / "known_hosts").unlink()
    settings = SshSettings(home)
    with pytest.raises(HostKeyRefused) as refused:
        connect(settings, f"root@{host.address}")
    text = str(refused.value)
    shown = run("ssh-keygen", "-lf", host.directory / "host_key.pub").split()[1]
    assert f"offered: {shown}" in text
    assert "known:   none" in text
    assert not (home / "known_hosts").exists()  # nothing is trusted by itself
    subprocess.run(text.splitlines()[-1], shell=True, check=True)
    assert hostname(settings, f"root@{host.address}") == host.name


def make_known(hosts: Hosts, home: Path) -> None:
    """Give the user of `home` the key that all hosts take."""
    for name in ("id_ed25519", "id_ed25519.pub"):
        (home / name).write_bytes((hosts.ssh / name).read_bytes())
        (home / name).chmod(0o600)


def test_a_changed_key_is_refused_with_both_fingerprints(hosts: Hosts, home: Path) -> None:
    make_known(hosts, home)
    host = hosts.add()
    with (home / "known_hosts").open("a") as file:
        file.write(host.known_line())
    old = run("ssh-keygen", "-lf", host.directory / "host_key.pub").split()[1]
    host.new_key()
    new = run("ssh-keygen", "-lf", host.directory / "host_key.pub").split()[1]
    settings = SshSettings(home)
    wait_until(lambda: "HAS CHANGED" in refusal(settings, host), "it shows its new key")
    text = refusal(settings, host)
    assert f"offered: {new}" in text
    assert f"known:   {old}" in text
    subprocess.run(text.splitlines()[-1], shell=True, check=True, capture_output=True)
    assert hostname(settings, f"root@{host.address}") == host.name


def refusal(settings: SshSettings, host: Host) -> str:
    try:
        connect(settings, f"root@{host.address}").close()
    except Unreachable as error:
        return str(error)
    return ""


def test_a_revoked_key_is_refused_although_it_is_known(
    hosts: Hosts, host: Host, home: Path
) -> None:
    make_known(hosts, home)
    with (home / "known_hosts").open("a") as file:
        file.write(f"@revoked * {' '.join(host.known_line().split()[1:])}\n")
    with pytest.raises(HostKeyRefused, match="revoked"):
        connect(SshSettings(home), f"root@{host.address}")


def test_a_hashed_name_is_known(hosts: Hosts, host: Host, home: Path) -> None:
    make_known(hosts, home)
    run("ssh-keygen", "-H", "-f", home / "known_hosts")
    assert host.address not in (home / "known_hosts").read_text()
    assert hostname(SshSettings(home), f"root@{host.address}") == host.name


# --- our keys ---


def test_without_a_key_that_fits_it_says_what_to_do(host: Host, home: Path) -> None:
    make_key(home / "id_ed25519")
    with pytest.raises(Unreachable, match=r"does not let root in: tried 1 of your keys"):
        connect(SshSettings(home), f"root@{host.address}")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_with_a_passphrase_is_asked_for_once(host: Host, home: Path, kind: str) -> None:
    make_key(home / f"id_{kind}", "open sesame", kind)
    allow(host, home / f"id_{kind}.pub")
    asked: list[str] = []

    def ask(path: str) -> str:
        asked.append(path)
        return "open sesame"

    settings = SshSettings(home, ask)
    for _ in range(2):
        assert hostname(settings, f"root@{host.address}") == host.name
    assert asked == [str(home / f"id_{kind}")]


def allow(host: Host, public: Path) -> None:
    with host.root("/root/.ssh/authorized_keys").open("a") as file:
        file.write(public.read_text())


def test_a_passphrase_that_nobody_gives_is_named(host: Host, home: Path) -> None:
    make_key(home / "id_ed25519", "open sesame")
    with pytest.raises(Unreachable, match="as the passphrase is not known"):
        connect(SshSettings(home), f"root@{host.address}")
    with pytest.raises(Unreachable, match="wrong passphrase"):
        connect(SshSettings(home, lambda path: "wrong"), f"root@{host.address}")


def test_an_agent_needs_no_file(hosts: Hosts, host: Host, home: Path) -> None:
    with agent(hosts.ssh / "id_ed25519"):
        assert hostname(SshSettings(home), f"root@{host.address}") == host.name


def test_of_a_full_agent_the_named_key_comes_first(hosts: Hosts, host: Host, home: Path) -> None:
    others = [home / f"other{number}" for number in range(7)]  # sshd hangs up after 6 tries
    for path in others:
        make_key(path)
    public = (hosts.ssh / "id_ed25519.pub").read_text()
    (home / "named.pub").write_text(public)
    (home / "config").write_text(f"Host {host.address}\n IdentityFile {home}/named\n")
    with agent(*others, hosts.ssh / "id_ed25519"):
        assert hostname(SshSettings(home), f"root@{host.address}") == host.name
        (home / "config").unlink()
        with pytest.raises(Unreachable, match="does not let root in"):
            connect(SshSettings(home), f"root@{host.address}")


# --- ~/.ssh/config ---


def test_the_config_gives_name_user_port_and_identity(hosts: Hosts, home: Path) -> None:
    host = hosts.add()
    with (host.directory / "sshd_config").open("a") as file:
        file.write("Port 2222\n")
    host.first().send_signal(1)
    (home / "known_hosts").write_text(f"[{host.address}]:2222 {host.known_line().split(' ', 1)[1]}")
    (home / "config").write_text(
        f"Host big-*\n  HostName {host.address}\n  User root\n  Port 2222\n"
        f"  IdentityFile {hosts.ssh}/id_ed25519\n  IdentitiesOnly yes\n"
    )
    settings = SshSettings(home)
    wait_until(
        lambda: "Server listening on 0.0.0.0 port 2222" in (host.directory / "log").read_text(),
        "its other port",
    )
    assert hostname(settings, "big-one") == host.name
    with pytest.raises(Unreachable):
        connect(settings, "big-one:22")  # what is said goes before the config


def test_the_config_may_lie_in_several_files(hosts: Hosts, host: Host, home: Path) -> None:
    make_known(hosts, home)
    (home / "config.d").mkdir()
    (home / "config.d/lab").write_text("Host big\n  User root\n  Include more\n  Port 22\n")
    (home / "more").write_text(f"HostName {host.address}\n")
    (home / "config").write_text("Include config.d/* nowhere\nUser nobody\nHost big\n Port 2222\n")
    settings = SshSettings(home)
    assert hostname(settings, "big") == host.name
    assert settings.host("other").user == "nobody"
    (home / "more").write_text("Include more\n")
    with pytest.raises(ProvisioningError, match="more than 16 levels of Include"):
        SshSettings(home)


def test_a_host_behind_others_is_reached_through_them(hosts: Hosts, host: Host, home: Path) -> None:
    make_known(hosts, home)
    second, inner = hosts.add(), hosts.add()
    (home / "known_hosts").write_text((hosts.ssh / "known_hosts").read_text())
    (home / "config").write_text(
        f"Host door\n HostName {host.address}\n"
        f"Host hall\n HostName {second.address}\n ProxyJump door\n"
        f"Host room\n HostName {inner.address}\n ProxyJump root@hall\nHost *\n User root\n"
    )
    settings = SshSettings(home)
    with closing(connect(settings, "room")) as transport:
        said = transport.run("hostname; echo $SSH_CONNECTION", timeout_s=10).output.split()
    assert said[:2] == [inner.name, second.address]


def test_many_hosts_behind_one_are_not_too_many_for_it(hosts: Hosts, home: Path) -> None:
    """An sshd as it comes drops connections when ten of them are not let in yet."""
    make_known(hosts, home)
    door, inner = hosts.add(), hosts.add()
    settings = door.directory / "sshd_config"
    settings.write_text(settings.read_text().replace("MaxStartups 100", "MaxStartups 10:100:10"))
    door.first().send_signal(1)
    log = door.directory / "log"
    wait_until(lambda: log.read_text().count("Server listening on 0.0.0.0") == 2, "its limit")
    (home / "known_hosts").write_text((hosts.ssh / "known_hosts").read_text())
    (home / "config").write_text(
        f"Host door\n HostName {door.address}\n"
        f"Host room*\n HostName {inner.address}\n ProxyJump door\nHost *\n User root\n"
    )
    with ThreadPoolExecutor(30) as pool:
        ours = SshSettings(home)
        names = pool.map(lambda number: hostname(ours, f"room{number}"), range(30))
        assert set(names) == {inner.name}


def test_jumps_in_a_circle_end(home: Path) -> None:
    (home / "config").write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(Unreachable, match="more than 8 hosts"):
        connect(SshSettings(home), "a")


@pytest.mark.parametrize(
    ("patterns", "name", "is_it"),
    [
        ("a.example,10.0.0.1", "10.0.0.1", True),
        ("*.example", "a.EXAMPLE", True),
        ("*.example,!b.example", "b.example", False),
        ("[a]:22?2", "[a]:2222", True),
        ("a.example", "axexample", False),
        ("|1|broken", "a", False),
    ],
)
def test_names_in_known_hosts_may_be_patterns(patterns: str, name: str, is_it: bool) -> None:
    assert matches(patterns, name) is is_it
