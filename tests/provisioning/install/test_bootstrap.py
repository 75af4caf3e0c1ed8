"""Bare machines become nodes over a real SSH server, whatever goes wrong on the way, and back."""

import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from clusters import Cluster, cluster
from hosts import PYTHONS, Host, Hosts
from waiting import wait_until
from wanted import MINOR, installers, want, wheelhouse

from burla import remote_parallel_map
from burla.provisioning.core.machines import ConnectionLost, ProvisioningError, StepFailed
from burla.provisioning.core.steps import CannotBe, Wanted
from burla.provisioning.install import bootstrap
from burla.provisioning.install.wheels import WHEEL, Wheels
from burla.provisioning.ssh.transport import SshSettings, connect
from burla.shell import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOOK_S = 0.02  # whether a step is carried out
PHASES = ["shipping", "environment", "installing", "setting up", "starting", "joining"]


@pytest.fixture(scope="module")
def wheels() -> Wheels:
    return wheelhouse()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("c")) as made:
        try:
            yield made
        finally:
            client = clients._clients.pop(made.address, None)
            if client is not None:
                client.close()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    wheelhouse()  # in there is no way to an index
    with Hosts() as made:
        yield made


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process at the end, also if what needs it fails: else who waits for it hangs."""
    try:
        yield
    finally:
        process.kill()


def silent(phase: str) -> None:
    """Say nothing."""


def no_token(name: str) -> None:
    """Say that there are no keys."""


def up(
    hosts: Hosts, host: Host, wanted: Wanted, wheels: Wheels, report: Callable[[str], None] = silent
) -> list[str]:
    """Make a host a node; return the phases it went through."""
    phases: list[str] = []

    def both(phase: str) -> None:
        phases.append(phase)
        report(phase)

    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        bootstrap.bring_up(transport, wanted, wheels.paths, no_token, both)
    return phases


def down(hosts: Hosts, host: Host, wanted: Wanted) -> None:
    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        bootstrap.take_down(transport, wanted, silent)


def where(calls: int = 6) -> set[str]:
    """Return the nodes that a few calls ran on."""

    def f(x: int) -> str:
        import os
        import time

        time.sleep(0.1)
        return os.environ["BURLA_NODE"]

    return set(remote_parallel_map(f, range(calls)))


def test_a_bare_machine_becomes_a_node_and_is_as_before_when_it_is_removed(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host = hosts.add()
    before = host.files(), host.files("/run")
    wanted = want(wheels, made.address, name="fresh")
    assert up(hosts, host, wanted, wheels) == ["probing", *PHASES, "probing"]
    assert where() == {"fresh"}
    assert installers(host.root("/root/.burla/test")) == {"uv"}
    assert up(hosts, host, wanted, wheels) == ["probing"]  # a second run does nothing
    down(hosts, host, wanted)
    assert host.processes() == []
    assert (host.files(), host.files("/run")) == before
    down(hosts, host, wanted)  # nor does removing twice


def test_a_connection_cut_while_it_is_removed_is_mended_by_removing_again(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host = hosts.add()
    before = host.files()
    wanted = want(wheels, made.address, name="half-gone")
    up(hosts, host, wanted, wheels)
    stopped = next(p for p in host.processes() if any("burla-nodelet" in w for w in line(p)))
    stopped.suspend()  # so that its end takes long enough to cut the line meanwhile
    with (
        ThreadPoolExecutor(1) as pool,
        closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport,
    ):
        pool.submit(cut_when_it_runs, host, "remove")
        with pytest.raises(ConnectionLost, match=r"^removing: "):
            bootstrap.take_down(transport, wanted, silent)
    down(hosts, host, wanted)
    assert host.processes() == []
    assert host.files() == before


def test_connections_cut_in_one_step_after_the_other_are_mended_by_the_next_run(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host, wanted = hosts.add(), want(wheels, made.address, name="cut")
    before = host.files()
    done: list[str] = []  # what need not be done again
    for phase in (*PHASES[:3], "joining"):
        assert not repeated(break_off(hosts, host, wanted, wheels, phase, Host.cut), done)
        done = PHASES[: PHASES.index(phase)]
    assert not repeated(up(hosts, host, wanted, wheels), done)
    assert where() == {wanted.name}
    down(hosts, host, wanted)
    assert host.processes() == []
    assert host.files() == before


def test_a_machine_that_stops_dead_in_one_step_after_the_other_is_mended_by_the_next_run(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    """Every process of the step is killed, as by a power cut; only its files are left."""
    host, wanted = hosts.add(), want(wheels, made.address, name="dead")
    for phase in PHASES[:3]:
        break_off(hosts, host, wanted, wheels, phase, kill_all)
    up(hosts, host, wanted, wheels)
    assert where() == {wanted.name}
    down(hosts, host, wanted)


def test_with_systemd_what_breaks_off_in_a_step_is_mended_by_the_next_run(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    """Each time the settings are others, which takes these steps again."""
    host = hosts.add(systemd=True)
    before = host.files()
    for number, phase in enumerate(PHASES[3:]):
        wanted = want(wheels, made.address, name=f"cut-{number}")
        break_off(hosts, host, wanted, wheels, phase, Host.cut)
        assert not repeated(up(hosts, host, wanted, wheels), PHASES[: PHASES.index(phase)])
        assert where() == {wanted.name}
    for number, phase in enumerate(PHASES[3:5]):  # those that are a step there
        wanted = want(wheels, made.address, name=f"dead-{number}")
        break_off(hosts, host, wanted, wheels, phase, kill_all)
        up(hosts, host, wanted, wheels)
        assert where() == {wanted.name}
    down(hosts, host, wanted)
    assert host.processes() == []
    assert host.files() == before


def break_off(
    hosts: Hosts,
    host: Host,
    wanted: Wanted,
    wheels: Wheels,
    phase: str,
    breaking: Callable[[Host], None],
) -> list[str]:
    """Begin to make a host a node and have it break in a phase; return those that were begun."""
    begun: list[str] = []
    over = threading.Event()

    def report(now: str) -> None:
        begun.append(now)
        if now == phase:
            pool.submit(until_over)

    def until_over() -> None:  # the step that was seen may be the one before, which just ends
        while not over.wait(LOOK_S):
            if carries_out(host):
                breaking(host)

    with ThreadPoolExecutor(1) as pool:
        try:
            with suppress(ProvisioningError):
                up(hosts, host, wanted, wheels, report)
                assert phase in PHASES[3:]  # these may be over before it breaks
        finally:
            over.set()
    assert phase in begun
    return begun


def repeated(phases: list[str], done: list[str]) -> list[str]:
    """Return what was done again that had been done; an environment without all is made anew."""
    return [phase for phase in phases if phase in done and phase != "environment"]


def carries_out(host: Host, step: str = "burla") -> bool:
    """Return whether a step, or a certain one, is carried out there."""
    return any(step in line(process) for process in host.processes())


def cut_when_it_runs(host: Host, step: str) -> None:
    """Cut the line as soon as a certain step is carried out there."""
    wait_until(lambda: carries_out(host, step), "a step")
    host.cut()


def line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill_all(host: Host) -> None:
    """End all that runs there, but for what each machine has."""
    while left := host.processes():  # one may have started another just before it was killed
        for process in left:
            with suppress(psutil.Error):
                process.kill()


def test_without_python_it_says_so(hosts: Hosts, made: Cluster, wheels: Wheels) -> None:
    host = hosts.add(more=f"mount --bind /dev/null {PYTHONS}")
    with pytest.raises(CannotBe, match="found no Python 3 at all"):
        up(hosts, host, want(wheels, made.address), wheels)
    assert not any(".burla" in path for path in host.files())


def test_python_without_its_venv_is_told_from_none(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host = hosts.add(more=f"mount -t tmpfs none /usr/lib/python{MINOR}/ensurepip")
    with pytest.raises(CannotBe, match=f"cannot make virtual .*apt-get install python{MINOR}-venv"):
        up(hosts, host, want(wheels, made.address), wheels)
    assert not any(".burla" in path for path in host.files())


def test_another_minor_is_named(hosts: Hosts, made: Cluster, wheels: Wheels) -> None:
    host = hosts.add()
    there = rf"\(found {MINOR} at /usr/bin/python3\)"
    with pytest.raises(CannotBe, match=rf"no Python 3\.99 there {there}: install it"):
        up(hosts, host, want(wheels, made.address, python="3.99"), wheels)
    assert not any(".burla" in path for path in host.files())


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host = hosts.add(home="size=30m")
    with pytest.raises(CannotBe, match=r"(29|30) MB are free"):
        up(hosts, host, want(wheels, made.address), wheels)
    assert not any(".burla" in path for path in host.files())


def test_a_disk_that_fills_up_in_the_middle_is_told_and_mended_when_there_is_room(
    hosts: Hosts, made: Cluster, wheels: Wheels
) -> None:
    host = hosts.add(home="size=300m")
    wanted = want(wheels, made.address, name="filled")
    ballast = host.root("/root/ballast")

    def fill(begun: str) -> None:
        if begun == "installing":
            free = shutil.disk_usage(host.root("/root")).free
            ballast.write_bytes(bytes(free - (2 << 20)))

    with pytest.raises(StepFailed, match="No space left"):
        up(hosts, host, wanted, wheels, fill)
    ballast.unlink()
    up(hosts, host, wanted, wheels)
    assert where() == {"filled"}
    down(hosts, host, wanted)


def test_without_an_index_it_says_what_pip_says(hosts: Hosts, made: Cluster) -> None:
    alone = wheelhouse()
    ours = Wheels({WHEEL: alone.paths[WHEEL]}, {WHEEL: alone.digests[WHEEL]}, False)
    host = hosts.add()
    wanted = want(ours, made.address, index="http://10.213.7.1:9/simple")
    said = r"installing: (?s:.*)No matching distribution(?s:.*)`--wheelhouse auto`"
    with pytest.raises(StepFailed, match=said):
        up(hosts, host, wanted, ours)
    down(hosts, host, wanted)
    assert not any(".burla" in path for path in host.files())


def test_from_an_index_only_our_own_wheel_is_shipped(
    hosts: Hosts, made: Cluster, wheels: Wheels, tmp_path: Path
) -> None:
    for name, path in wheels.paths.items():
        if name != WHEEL:
            project = name.split("-")[0].lower().replace("_", "-")
            (tmp_path / "simple" / project).mkdir(parents=True)
            shutil.copy(path, tmp_path / "simple" / project)
    serve = ["python3", "-m", "http.server", "0", "--bind", "10.213.7.1", "-d", str(tmp_path)]
    with (
        subprocess.Popen(
            serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server,
        killed(server),
    ):
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        host = hosts.add()
        ours = replace(
            wheels,
            paths={WHEEL: wheels.paths[WHEEL]},
            digests={WHEEL: wheels.digests[WHEEL]},
            is_wheelhouse=False,
        )
        index = f"http://10.213.7.1:{port}/simple"
        wanted = want(ours, made.address, name="indexed", index=index)
        sent = next((tmp_path / "simple" / "cloudpickle").iterdir())
        good = sent.read_bytes()
        put_into(sent)
        changed = r"installing: (?s:.*)DO NOT MATCH THE HASHES(?s:.*)somebody has changed it"
        with pytest.raises(StepFailed, match=changed):
            up(hosts, host, wanted, ours)
        assert not list(host.root("/root").rglob("evil.py"))
        sent.write_bytes(good)
        up(hosts, host, wanted, ours)
    assert where() == {"indexed"}
    assert installers(host.root("/root/.burla/test")) == {"pip"}
    assert len(list(host.root("/root/.burla/test/wheels").iterdir())) == 1
    down(hosts, host, wanted)


def put_into(wheel: Path) -> None:
    """Have pip install a module more, if it takes the wheel."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("evil.py", "")


@pytest.mark.parametrize("name", [WHEEL, "cloudpickle-"])
def test_a_wheel_that_is_changed_on_the_machine_is_not_installed(
    hosts: Hosts, made: Cluster, wheels: Wheels, name: str
) -> None:
    host = hosts.add()
    wanted = want(wheels, made.address)

    def change(begun: str) -> None:
        if begun == "installing":
            there = host.root("/root/.burla/test/wheels")
            put_into(next(path for path in there.iterdir() if path.name.startswith(name)))

    with pytest.raises(StepFailed, match=r"installing: (?s:.*)DO NOT MATCH THE HASHES"):
        up(hosts, host, wanted, wheels, change)
    assert not list(host.root("/root").rglob("evil.py"))
    down(hosts, host, wanted)


def test_a_nodelet_that_dies_is_started_again(hosts: Hosts, made: Cluster, wheels: Wheels) -> None:
    host = hosts.add()
    wanted = want(wheels, made.address, name="again")
    up(hosts, host, wanted, wheels)
    nodelet = next(p for p in host.processes() if any("burla-nodelet" in w for w in line(p)))
    nodelet.kill()
    wait_until(lambda: not nodelet.is_running(), "it is gone")
    assert where() == {"again"}
    with closing(connect(SshSettings(hosts.ssh), f"root@{host.address}")) as transport:
        bootstrap.drain(transport, wanted, silent, 30)
        assert host.processes() == []  # one that has left is not
        assert bootstrap.look(transport, wanted).running == ""
        bootstrap.take_down(transport, wanted, silent)


def test_a_node_without_its_scheduler_says_so(hosts: Hosts, wheels: Wheels) -> None:
    host = hosts.add()
    wanted = want(wheels, "ipc:///tmp/nobody-listens-here", name="lonely", join_s=1)
    with pytest.raises(StepFailed, match=r"joining: (?s:.*)did not answer within 1 s"):
        up(hosts, host, wanted, wheels)
    down(hosts, host, wanted)
    assert host.processes() == []


def test_the_script_does_it_all_by_hand(hosts: Hosts, made: Cluster, wheels: Wheels) -> None:
    host = hosts.add()
    before = host.files()
    folder = hosts.directory / "by-hand"
    folder.mkdir()
    for path in (*wheels.paths.values(), bootstrap.SCRIPT):
        shutil.copy(path, folder)
    command = f"sh {folder}/bootstrap.sh up --name hand --scheduler {made.address}"
    command += f" --wheel {folder}/{WHEEL} --wheelhouse {folder}"
    (folder / "pins.txt").write_text(wheels.requirements)
    command += f" --requirements {folder}/pins.txt"
    for _ in range(2):
        assert "hand is a node of" in host.call(command)
    assert where() == {"hand"}
    host.call(f"sh {folder}/bootstrap.sh remove")
    assert host.processes() == []
    assert host.files() == before


def test_four_hosts_at_once(hosts: Hosts, made: Cluster, wheels: Wheels) -> None:
    four = [hosts.add() for _ in range(4)]
    nodes = [
        (host, want(wheels, made.address, name=f"n{i}", cpus=1)) for i, host in enumerate(four)
    ]
    with ThreadPoolExecutor(4) as pool:
        all_phases = list(pool.map(lambda node: up(hosts, node[0], node[1], wheels), nodes))
        assert all(phases == ["probing", *PHASES, "probing"] for phases in all_phases)
        assert where(12) == {wanted.name for _, wanted in nodes}
        list(pool.map(lambda node: down(hosts, node[0], node[1]), nodes))
    assert [host.processes() for host in four] == [[]] * 4


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    (directory / "node.sh").touch()
    line = ["sh", str(bootstrap.SCRIPT), "unit", "--cluster", "c1", "--directory", str(directory)]
    unit = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    file = tmp_path / "burla-node-c1.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ExecStart=/bin/sh {directory}/node.sh" in unit
