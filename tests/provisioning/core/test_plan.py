"""How many machines there should be."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from burla.protocol.messages import Machines, Wish
from burla.provisioning.core.machines import Machine, Shape
from burla.provisioning.core.plan import (
    MADE_BY,
    Limits,
    Order,
    believed,
    grow,
    lacking,
    missing,
    orders,
    orphans,
    paid_for,
    shrink,
    stale,
    stamp,
    wanted,
)

OURS = Machine("a", "z", "gce", labels={"burla-managed": "true"}, cost_per_h=1.0)
STATES = ["ready", "creating", "joining", "ending", "ended", "failed"]
LIMITS = Limits(max_nodes=10, max_cost_per_h=100.0)
SHAPE = Shape(cpus=8, ram=32 << 30)
WISH = Wish(
    python="3.11",
    func_cpu=1,
    func_ram=None,
    calls=1000,
    max_parallelism=None,
    slots=8,
    call_s=1.0,
    waited_s=10.0,
    fits=True,
)


def machines(*states: str, grown: bool = False) -> list[Machine]:
    return [
        replace(OURS, name=f"m{number}", state=state, grown=grown)
        for number, state in enumerate(states)
    ]


def test_what_stands_is_filled_up_and_grown_ones_do_not_count() -> None:
    assert missing(3, machines("ready", "creating", "ended", "failed")) == 1
    assert missing(1, machines("ready", grown=True)) == 1
    assert missing(1, machines("ready", "ready")) == 0
    said = [replace(machine, says_so=True) for machine in machines("ending", "failed", "ready")]
    assert missing(3, said) == 1  # what drains runs
    assert missing(1, machines("ending")) == 1  # its provider says that it ends


def test_what_another_burla_has_made_is_stale() -> None:
    this = stamp("1.0.0rc1", "3.11")
    assert this == "1-0-0rc1-py3-11"
    assert this != stamp("1.0.0rc1", "3.12")
    labels = OURS.labels | {MADE_BY: this}
    ours, grown = replace(OURS, labels=labels), replace(OURS, name="g", grown=True)
    theirs = replace(OURS, labels={})
    assert stale([ours, grown, OURS, replace(OURS, state="failed"), theirs], this) == [OURS, grown]


@pytest.mark.parametrize(
    ("what", "changed", "machines"),
    [
        ("125 s of wait come down to 60", {}, 2),
        ("a wait of 59 s is short", {"call_s": 0.47}, 0),
        ("no more than can work at once", {"calls": 20, "call_s": 600.0}, 2),
        ("no more than max_parallelism", {"call_s": 600.0, "max_parallelism": 17}, 2),
        ("all the calls there are run already", {"calls": 8, "call_s": 600.0}, 0),
        ("none has ended: its function may be loading", {"call_s": 0.0, "waited_s": 59.0}, 0),
        ("none has ended for long: they last as they have", {"call_s": 0.0, "waited_s": 60.0}, 124),
        ("nothing runs and nothing fits: one will tell", {"slots": 0, "fits": False}, 1),
        ("nothing runs, and it may be its turn soon", {"slots": 0}, 0),
        ("nothing runs, and it was not", {"slots": 0, "waited_s": 60.0}, 1),
        ("a call with many CPUs needs more machines", {"func_cpu": 4, "slots": 2}, 8),
        ("a call with much memory, too", {"func_ram": 16 << 30, "slots": 2}, 8),
        ("a call that does not fit on it", {"func_cpu": 16, "slots": 0, "fits": False}, 0),
        ("another Python", {"python": "3.12", "slots": 0, "fits": False}, 0),
    ],
)
def test_a_long_wait_asks_for_as_many_as_help(
    what: str, changed: dict[str, object], machines: int
) -> None:
    said = {name: getattr(WISH, name) for name in WISH.__struct_fields__} | changed
    assert wanted(Wish(**said), SHAPE, "3.11") == machines, what


def test_what_memory_a_machine_has_may_not_be_known() -> None:
    assert Shape(8).slots(1, 1 << 40) == 8
    assert SHAPE.slots(1, 8 << 30) == 4


def test_a_machine_runs_as_many_calls_as_it_has_devices_for() -> None:
    assert Shape(8, gpus=4).slots(1, None, 2) == 2
    assert Shape(8, gpus=4).slots(4, None, 1) == 2
    assert Shape(8).slots(1, None, 1) == 0


def test_those_on_their_way_are_not_asked_for_again() -> None:
    assert grow(2, machines("ready", "creating", "joining"), LIMITS, 1.0).count == 0
    assert grow(3, machines("ready", "creating", "joining"), LIMITS, 1.0).count == 1


def test_those_on_their_way_count_for_what_they_were_made_for() -> None:
    plain, east, west = Machines(), Machines("us-east1"), Machines("us-west1", 50)
    wanted = {plain: 2, east: 1, west: 3}
    left = lacking(wanted, {plain: 5, west: 1})
    assert left == {east: 1, west: 2}
    assert list(orders(99, left)) == [Order(1, east), Order(2, west)]
    assert list(orders(2, left)) == [Order(1, east), Order(1, west)]
    assert list(orders(0, left)) == []


def test_all_that_runs_counts_against_both_limits() -> None:
    there = machines("ending", "failed", "ready", "ended")
    assert grow(99, there, LIMITS, 1.0).count == 7
    assert grow(99, there, replace(LIMITS, max_cost_per_h=5.0), 1.0).count == 2


def test_what_a_machine_says_is_believed_until_its_node_has_joined() -> None:
    said = [replace(machine, says_so=True) for machine in machines("ending", "failed", "joining")]
    assert believed(said, ()) == said
    assert {machine.state for machine in believed(said, {"m0", "m1", "m2"})} == {"ready"}
    # what its provider says is so
    assert believed(machines("ending", "ended"), {"m0", "m1"}) == machines("ending", "ended")


def test_the_limits_are_named() -> None:
    limit = "the cluster is at its limit"
    few = grow(99, machines("ready"), LIMITS, 1.0)
    assert (few.count, few.why) == (9, f"{limit} (grow.max_nodes = 10)")
    cheap = replace(LIMITS, max_cost_per_h=3.0)
    dear = grow(99, machines("ready"), cheap, 1.0)
    assert (dear.count, dear.why) == (2, f"{limit} (grow.max_cost_per_h = 3)")
    unknown = grow(99, machines("ready"), cheap, None)
    assert (unknown.count, unknown.why) == (0, "the price of a machine is not set (grow.prices)")
    assert grow(5, machines("ready"), replace(LIMITS, max_cost_per_h=None), None).count == 5


def test_an_idle_machine_goes_after_its_time_and_a_grown_one_sooner() -> None:
    standing, grown = OURS, replace(OURS, name="g", grown=True)

    def gone(idle_s: float, keep: int = 0) -> list[Machine]:
        limits = replace(LIMITS, keep=keep)
        return shrink([standing, grown], {"a": idle_s, "g": idle_s}, limits)

    assert gone(59.0) == []
    assert gone(60.0) == [grown]
    assert gone(600.0) == [grown, standing]
    assert gone(600.0, keep=1) == [grown]  # what was made for a job goes first
    assert gone(600.0, keep=2) == []
    assert shrink([standing, grown], {}, LIMITS) == []  # both are busy


def test_what_is_not_ours_is_nobodys_orphan() -> None:
    stranger = replace(OURS, state="ended", labels={"burla-cluster": "c"})
    late = replace(OURS, name="late", expires_s=100.0)
    assert orphans([stranger, late, *machines("ended", "ready")], 99.0) == machines("ended")
    assert late in orphans([late], 100.0)


@given(
    st.lists(
        st.sampled_from(["ready", "creating", "joining", "ending", "ended", "failed"]), max_size=20
    ),
    st.integers(-5, 10_000),
    st.floats(0, 10),
)
def test_no_demand_ever_exceeds_a_limit(states: list[str], wanted: int, price: float) -> None:
    there = machines(*states)
    count = grow(wanted, there, LIMITS, price).count
    assert count >= 0
    if count:
        assert len(paid_for(there)) + count <= LIMITS.max_nodes
        spent = sum(machine.cost_per_h for machine in paid_for(there))
        assert spent + count * price <= 100.0 + 1e-6
