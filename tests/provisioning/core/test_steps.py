"""From facts to steps: nothing that is done is done again, nothing that is missing is left out."""

from dataclasses import replace

import pytest

from burla.provisioning.core.facts import Facts
from burla.provisioning.core.machines import ProvisioningError
from burla.provisioning.core.steps import CannotBe, Wanted, steps

WANTED = Wanted(
    cluster="c",
    name="n1",
    scheduler="tcp://10.0.0.1:7270",
    python="3.11",
    version="1",
    wheel="burla.whl",
    wheels={"burla.whl": "b0", "zmq.whl": "c0"},
    is_wheelhouse=True,
)
BARE = Facts(python="/usr/bin/python3.11", free_kb=1 << 20)
NODE = replace(
    BARE,
    venv="3.11",
    installed=WANTED.installed(),
    settings=WANTED.settings(),
    version="1",
    running=f"{WANTED.installed()} {WANTED.settings()}",
    ready_s=2,
    wheels=dict(WANTED.wheels),
    there=True,
)


def names(facts: Facts, wanted: Wanted = WANTED) -> list[str]:
    return [step.name for step in steps(facts, wanted)]


def test_a_bare_machine_needs_all_of_it() -> None:
    assert names(BARE) == ["ship", "venv", "install", "service", "start", "hello"]


def test_a_node_needs_nothing() -> None:
    assert names(NODE) == []


@pytest.mark.parametrize(
    ("broken", "todo"),
    [
        ({"ready_s": None}, ["hello"]),
        ({"ready_s": 400}, ["hello"]),  # the scheduler is away: nothing is begun anew
        ({"running": "", "ready_s": None}, ["start", "hello"]),
        ({"running": "of an older one"}, ["start", "hello"]),
        ({"settings": ""}, ["drain", "service", "start", "hello"]),
        ({"settings": "", "running": ""}, ["service", "start", "hello"]),
        ({"version": "", "running": ""}, ["venv", "install", "start", "hello"]),  # no Python left
        ({"installed": "", "version": ""}, ["drain", "install", "start", "hello"]),
        ({"installed": "", "version": "1", "running": ""}, ["venv", "install", "start", "hello"]),
        ({"venv": ""}, ["drain", "venv", "install", "start", "hello"]),
        (
            {"venv": "", "wheels": {"zmq.whl": "c0"}},
            ["ship", "drain", "venv", "install", "start", "hello"],
        ),
    ],
)
def test_what_is_half_done_is_mended_and_no_more(
    broken: dict[str, object], todo: list[str]
) -> None:
    assert names(replace(NODE, **broken)) == todo  # type: ignore[arg-type]  # by name


def test_only_wheels_that_are_not_there_are_shipped() -> None:
    facts = replace(BARE, wheels={"zmq.whl": "c0", "burla.whl": "cut off"})
    assert steps(facts, WANTED)[0].files == ("burla.whl",)


def test_another_burla_is_installed_from_nothing() -> None:
    newer = replace(WANTED, wheels=WANTED.wheels | {"burla.whl": "b1"})
    assert names(NODE, newer) == ["ship", "drain", "venv", "install", "start", "hello"]


def test_another_scheduler_needs_a_start_only() -> None:
    assert names(NODE, replace(WANTED, scheduler="tcp://10.0.0.2:1")) == [
        "drain",
        "service",
        "start",
        "hello",
    ]


def test_a_token_goes_to_stdin_and_to_nothing_else() -> None:
    todo = steps(BARE, replace(WANTED, needs_token=True))
    assert [step.name for step in todo if step.takes_token] == ["start"]
    assert all("--join-token-file -" in s.arguments for s in todo if s.name in ("service", "start"))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (replace(BARE, python=""), "found no Python 3 at all"),
        (replace(BARE, python="", others="3.9 at /usr/bin/python3"), "3.9 at /usr/bin/python3"),
        (replace(BARE, python="", without_venv="/usr/bin/python3.11"), "python3.11-venv"),
        (replace(BARE, free_kb=20 << 10), "20 MB are free"),
    ],
)
def test_a_machine_that_can_not_be_a_node_is_told_why(facts: Facts, why: str) -> None:
    with pytest.raises(CannotBe, match=why):
        steps(facts, WANTED)


def test_a_full_disk_does_not_matter_to_a_node_that_is_there() -> None:
    assert names(replace(NODE, free_kb=0)) == []


@pytest.mark.parametrize("bad", [{"cluster": "a b"}, {"name": "$(x)"}, {"directory": "/a b"}])
def test_what_goes_into_commands_is_checked(bad: dict[str, str]) -> None:
    with pytest.raises(ProvisioningError):
        replace(WANTED, **bad)  # type: ignore[arg-type]  # by name


def test_what_is_quoted_stays_one_word() -> None:
    odd = replace(WANTED, scheduler="burla://h:1?key=a'b&c d")
    (step,) = [step for step in steps(BARE, odd) if step.name == "hello"]
    assert "'burla://h:1?key=a'\"'\"'b&c d'" in step.arguments


def test_what_may_be_installed_goes_along_and_its_hashes_change_nothing_on_a_node() -> None:
    text = "burla --hash=sha256:0\na==1 --hash=sha256:1\n"
    wanted = replace(WANTED, requirements=text, is_wheelhouse=False)
    install = next(step for step in steps(BARE, wanted) if step.name == "install")
    assert install.stdin == text.encode()
    assert "--requirements -" in install.arguments
    assert wanted.installed() == replace(wanted, requirements="burla\na==1\n").installed()
    assert wanted.installed() != replace(wanted, requirements="burla\na==2\n").installed()
    assert WANTED.installed() == replace(WANTED, requirements=text).installed()  # its wheels count


def given(*packages: str, **wheels: str) -> Wanted:
    return replace(WANTED, packages=packages, package_wheels=wheels)


def test_packages_of_all_jobs_are_installed_before_the_node_begins() -> None:
    wanted = given("numpy==2.1", **{"numpy-2.1.whl": "a0"})
    assert names(BARE, wanted) == [
        *("ship", "venv", "install", "packages", "service", "start", "hello")
    ]
    ship, _, _, packages, service, *_ = steps(BARE, wanted)
    assert ship.files == ("burla.whl", "zmq.whl", "numpy-2.1.whl")
    assert packages.stdin == b"numpy==2.1\n"
    assert packages.arguments.endswith(" --wheelhouse ~/.burla/c/wheels")
    assert "--packages -" in service.arguments


def test_other_packages_are_installed_while_what_runs_goes_on() -> None:
    wanted = given("numpy==2.1", **{"numpy-2.1.whl": "a0"})
    assert names(NODE, wanted) == ["ship", "packages", "drain", "service", "start", "hello"]
    has = replace(
        NODE,
        packages=wanted.packages_stamp(),
        settings=wanted.settings(),
        running=f"{wanted.installed()} {wanted.settings()}",
    )
    assert names(has, wanted) == []
    other = given("numpy==2.2")
    assert names(has, other) == ["packages", "drain", "service", "start", "hello"]
    assert names(has) == ["packages", "drain", "service", "start", "hello"]  # none any more
    newer = replace(wanted, wheels=WANTED.wheels | {"burla.whl": "b1"})
    assert "packages" not in names(has, newer)  # they survive another burla


def test_a_node_asks_the_index_of_its_cluster() -> None:
    wanted = replace(given("numpy"), is_wheelhouse=False, index="https://i/simple")
    told = {step.name: step.arguments for step in steps(BARE, wanted)}
    assert told["packages"].endswith(" --index https://i/simple")
    assert told["service"].endswith(" --index https://i/simple")
