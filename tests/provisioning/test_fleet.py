"""What `burla up` and `gc` do with machines of a provider, and what they believe of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from burla.provisioning.core.machines import Machine, ProvisioningError, Shape
from burla.provisioning.core.plan import DRAINING, MADE_BY
from burla.provisioning.fleet import Fleet

OLD, NEW = "1-0-py3-11", "2-0-py3-11"
SAID = {"failed": "no Python", "ending": "drained"}


@dataclass
class Provider:
    """A provider whose machines join when the clock has moved, and drain when they are told."""

    now_s: float = 0.0
    made_by: str = NEW
    room: int = 100
    calls_s: float = 3.0  # how long what runs on a machine goes on
    never_join: bool = False
    there: dict[str, Machine] = field(default_factory=dict)
    nodes: set[str] | None = field(default_factory=set)  # of the scheduler; None: it is silent
    log: list[str] = field(default_factory=list)
    at_s: dict[str, float] = field(default_factory=dict)  # when something happens to a machine
    returning: dict[str, float] = field(default_factory=dict)  # when nodes are back
    least: int = 1000  # nodes at once

    def add(self, name: str, state: str = "ready", made_by: str = OLD, grown: bool = False) -> None:
        labels = {"burla-managed": "true", MADE_BY: made_by}
        why = SAID.get(state, "")
        self.there[name] = Machine(name, "z", "gce", state, why, True, grown=grown, labels=labels)
        if state == "ready" and self.nodes is not None:
            self.nodes.add(name)

    def joined(self) -> set[str] | None:
        return self.nodes

    def observe(self) -> list[Machine]:
        return list(self.there.values())

    def create(self, count: int, *, grown: bool = False) -> list[Machine]:
        count = min(count, self.room - len(self.there))
        if count < 1:
            raise ProvisioningError("the quota is used up")
        made = []
        for _ in range(count):
            name = f"new-{len(self.log)}"
            self.log.append(f"made {name}")
            self.add(name, "creating", self.made_by, grown)
            self.at_s[name] = self.now_s + 2.0
            made.append(self.there[name])
        return made

    def shape(self) -> Shape:
        return Shape(1)

    def price_per_h(self) -> float | None:
        return None

    def drain(self, machine: Machine, wait_s: float) -> None:
        self.log.append(f"drain {machine.name}")
        self.there[machine.name] = replace(machine, state="ending", why=DRAINING)
        self.at_s[machine.name] = self.now_s + self.calls_s

    def delete(self, machines: Sequence[Machine]) -> None:
        for machine in machines:
            self.log.append(f"delete {machine.name}")
            del self.there[machine.name]
            if self.nodes is not None:
                self.nodes.discard(machine.name)

    def clean(self) -> None:
        self.log.append("clean")

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        for name, due_s in list(self.at_s.items()):
            if name not in self.there or due_s > self.now_s:
                continue
            del self.at_s[name]
            if self.there[name].state == "ending":  # its calls have ended, and its node has left
                self.there[name] = replace(self.there[name], why="drained")
                assert self.nodes is not None
                self.nodes.discard(name)
            elif not self.never_join:
                self.there[name] = replace(self.there[name], state="ready")
                assert self.nodes is not None
                self.nodes.add(name)
        if self.nodes is not None:
            self.nodes |= {n for n, due_s in self.returning.items() if due_s <= self.now_s}
            self.least = min(self.least, len(self.nodes))


@pytest.fixture
def provider() -> Provider:
    return Provider()


def fleet(provider: Provider, standing: int = 2, **other: object) -> Fleet:
    said: dict[str, object] = {
        "joined": provider.joined,
        "clock_s": lambda: provider.now_s,
        "pause": provider.pause,
        "now_s": lambda: 0.0,
    }
    return Fleet(provider, standing, 60.0, **said | other)  # type: ignore[arg-type]  # by name


def quiet(name: str, phase: str) -> None:
    """Tell nobody."""


Act = Callable[[Fleet], list[Machine]]
ACTS: list[Act] = [lambda f: f.up(quiet), lambda f: f.collect(quiet)]


# --- what a machine says of itself ---


@pytest.mark.parametrize("act", ACTS, ids=["up", "gc"])
@pytest.mark.parametrize("word", ["failed", "ending"])
def test_a_job_that_speaks_for_its_machine_neither_ends_nor_doubles_it(
    act: Act, word: str, provider: Provider
) -> None:
    provider.add("a")
    provider.add("b")
    provider.there["a"] = replace(provider.there["a"], state=word, why=SAID[word])
    found = act(fleet(provider))
    assert provider.log == []
    assert [m.state for m in found if m.name == "a"] in ([], ["ready"])


@pytest.mark.parametrize("act", ACTS, ids=["up", "gc"])
def test_nodes_of_a_scheduler_that_has_just_begun_are_waited_for(
    act: Act, provider: Provider
) -> None:
    provider.add("a", "failed")
    provider.returning["a"] = 5.0
    act(fleet(provider, 1, settle_s=15.0))
    assert provider.log == []


@pytest.mark.parametrize("act", ACTS, ids=["up", "gc"])
def test_with_a_silent_scheduler_nothing_is_deleted_for_what_it_says(
    act: Act, provider: Provider
) -> None:
    provider.add("a", "failed")
    provider.add("b", "ending")
    provider.nodes = None
    act(fleet(provider))
    assert provider.log == []


def test_before_its_node_has_joined_a_machine_is_believed(provider: Provider) -> None:
    provider.add("a", "failed")
    provider.add("b")
    found = fleet(provider).up(quiet)
    assert provider.log == ["delete a", "made new-1"]
    assert sorted(m.name for m in found) == ["b", "new-1"]
    provider.add("c", "failed")
    assert [m.name for m in fleet(provider).collect(quiet)] == ["c"]


def test_one_that_drains_counts_while_it_runs_and_one_that_has_drained_is_given_up(
    provider: Provider,
) -> None:
    provider.add("a")
    provider.add("b", "ending")
    provider.there["b"] = replace(provider.there["b"], why=DRAINING)
    fleet(provider).up(quiet)
    assert provider.log == []
    provider.there["b"] = replace(provider.there["b"], why="drained")
    fleet(provider).up(quiet)
    assert provider.log == ["delete b", "made new-1"]


# --- another version ---


def test_machines_of_another_version_are_drained_and_replaced_one_by_one(
    provider: Provider,
) -> None:
    gone: list[str] = []
    for name in ("a", "b"):
        provider.add(name)
    provider.add("new", made_by=NEW)
    one = fleet(provider, 3, gone=gone.extend)
    assert one.renew(NEW, quiet) == []
    assert provider.log == [
        *("made new-0", "drain a", "delete a"),
        *("made new-3", "drain b", "delete b"),
    ]
    assert gone == ["a", "b"]
    assert provider.least == 3, "there are always as many as shall be"
    assert provider.now_s >= 2 * (2.0 + provider.calls_s), "each was waited for"
    assert one.renew(NEW, quiet) == []
    assert len(provider.log) == 6


def test_without_room_for_one_more_a_machine_goes_before_another_comes(provider: Provider) -> None:
    provider.room = 2
    for name in ("a", "b"):
        provider.add(name)
    assert fleet(provider, spare=False).renew(NEW, quiet) == []
    assert provider.log == [
        *("drain a", "delete a", "made new-2"),
        *("drain b", "delete b", "made new-5"),
    ]
    assert provider.least == 1


def test_what_cannot_be_replaced_goes_on_and_is_told(provider: Provider) -> None:
    provider.room = 3
    for name in ("a", "b", "c"):
        provider.add(name)
    left = fleet(provider, 3).renew(NEW, quiet)
    assert [m.name for m in left] == ["a", "b", "c"]
    assert "the quota is used up" in left[0].why
    assert provider.log == []


def test_calls_that_outlast_the_drain_are_not_cut_off(provider: Provider) -> None:
    provider.calls_s = 1000.0
    provider.add("a")
    (left,) = fleet(provider, 1, drain_s=10.0).renew(NEW, quiet)
    assert "calls still run there after 10 s" in left.why
    assert provider.log == ["made new-0", "drain a"]
    provider.pause(1000.0)  # the next command finds that they have ended
    assert fleet(provider, 1).up(quiet)
    assert provider.log[-1] == "delete a"


def test_one_that_says_it_has_drained_while_its_node_serves_is_waited_for(
    provider: Provider,
) -> None:
    """Its job may say so, too."""
    provider.add("a")
    one = fleet(provider, 1)

    def pause(seconds: float) -> None:
        provider.pause(seconds)
        if "a" in provider.there and provider.there["a"].state == "ending":
            provider.there["a"] = replace(provider.there["a"], why="drained")

    one.pause = pause
    assert one.renew(NEW, quiet) == []
    assert provider.now_s >= 2.0 + provider.calls_s


def test_a_new_one_that_never_joins_is_deleted_and_the_old_one_stays(provider: Provider) -> None:
    provider.never_join = True
    provider.add("a")
    (left,) = fleet(provider, 1).renew(NEW, quiet)
    assert "did not join within 60 s" in left.why
    assert provider.log == ["made new-0", "delete new-0"]


def test_what_was_made_for_a_job_goes_and_comes_again_if_it_is_asked_for(
    provider: Provider,
) -> None:
    provider.add("g", grown=True)
    assert fleet(provider, 0).renew(NEW, quiet) == []
    assert provider.log == ["drain g", "delete g"]
