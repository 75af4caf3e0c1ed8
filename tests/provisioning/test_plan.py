"""How many machines there should be."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from burla.provisioning.machines import Machine
from burla.provisioning.plan import Demand, Limits, alive, grow, missing, orphans, shrink

OURS = Machine("a", "z", "gce", labels={"burla-managed": "true"}, cost_per_h=1.0)
LIMITS = Limits(max_nodes=10, max_cost_per_h=100.0)


def machines(*states: str, grown: bool = False) -> list[Machine]:
    return [
        replace(OURS, name=f"m{number}", state=state, grown=grown)
        for number, state in enumerate(states)
    ]


def test_what_stands_is_filled_up_and_grown_ones_do_not_count() -> None:
    assert missing(3, machines("ready", "creating", "ended", "failed")) == 1
    assert missing(1, machines("ready", grown=True)) == 1
    assert missing(1, machines("ready", "ready")) == 0


def test_a_short_wait_asks_for_nobody() -> None:
    assert grow(Demand(30.0, 1000, 8), [], LIMITS, 1.0).count == 0


def test_a_long_wait_asks_for_as_many_as_help() -> None:
    assert grow(Demand(600.0, 16, 8), machines("ready"), LIMITS, 1.0).count == 2  # by calls
    assert grow(Demand(180.0, 1000, 8), machines("ready"), LIMITS, 1.0).count == 2  # by the wait


def test_those_on_their_way_are_not_asked_for_again() -> None:
    there = machines("ready", "creating", "joining")
    assert grow(Demand(180.0, 1000, 8), there, LIMITS, 1.0).count == 0


def test_the_limits_are_named() -> None:
    few = grow(Demand(9999.0, 10_000, 8), machines("ready"), LIMITS, 1.0)
    assert (few.count, few.why) == (9, "max_nodes is 10")
    cheap = replace(LIMITS, max_cost_per_h=3.0)
    dear = grow(Demand(9999.0, 10_000, 8), machines("ready"), cheap, 1.0)
    assert (dear.count, dear.why) == (2, "max_cost_per_h is 3")


def test_an_idle_machine_goes_after_its_time_and_a_grown_one_sooner() -> None:
    standing, grown = OURS, replace(OURS, name="g", grown=True)
    idle = {"a": 0.0, "g": 0.0}
    assert shrink([standing, grown], idle, 0, LIMITS, 59.0) == []
    assert shrink([standing, grown], idle, 0, LIMITS, 60.0) == [grown]
    assert shrink([standing, grown], idle, 0, LIMITS, 600.0) == [grown, standing]
    assert shrink([standing, grown], idle, 1, LIMITS, 600.0) == [grown]  # it is to stand
    assert shrink([standing, grown], {}, 0, LIMITS, 9e9) == []  # both are busy


def test_what_is_not_ours_is_nobodys_orphan() -> None:
    stranger = replace(OURS, state="ended", labels={"burla-cluster": "c"})
    late = replace(OURS, name="late", expires_s=100.0)
    assert orphans([stranger, late, *machines("ended", "ready")], 99.0) == machines("ended")
    assert late in orphans([late], 100.0)


@given(
    st.lists(st.sampled_from(["ready", "creating", "joining", "ended", "failed"]), max_size=20),
    st.floats(0, 1e6),
    st.integers(0, 10_000),
    st.integers(1, 64),
    st.floats(0, 10),
)
def test_no_demand_ever_exceeds_a_limit(
    states: list[str], wait_s: float, calls: int, slots: int, price: float
) -> None:
    there = machines(*states)
    count = grow(Demand(wait_s, calls, slots), there, LIMITS, price).count
    assert count >= 0
    if count:
        assert len(alive(there)) + count <= LIMITS.max_nodes
        spent = sum(machine.cost_per_h for machine in alive(there))
        assert spent + count * price <= LIMITS.max_cost_per_h + 1e-6
