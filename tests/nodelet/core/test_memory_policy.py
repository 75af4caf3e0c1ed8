"""What a lease does when memory runs short, told by figures; the node has 1000 bytes."""

from doubles.worker import ModelWorker
from opening import LEASE, start_lease
from worker_model import MEMORY, SCHEDULER, HandNode, assign

from burla.nodelet.core import effects as e
from burla.nodelet.core.memory_policy import RISE_MAX_S, critical, low
from burla.protocol import messages as m
from burla.protocol.codec import unpack_runs
from burla.protocol.deaths import Death, OutOfMemoryFigures, decode_death
from burla.protocol.messages import Kind

PLENTY, LOW, CRITICAL = 700, 90, 40
KILLED = ("signal", 9)


def node_with(slots: int, inputs: int, func_ram: int | None = None) -> HandNode:
    """Return a node whose slots are all in a call, each of an input of its own."""
    node = HandNode(cpus=slots)
    node.hear(m.Welcome(SCHEDULER, "0", "pub"))
    node.hear(start_lease(slots, func_ram=func_ram), [b"function"])
    node.hear(*assign((0, inputs)))
    node.load()
    begin(node)
    return node


def begin(node: HandNode) -> None:
    """Let all workers that have something begin it."""
    for worker in list(node.workers.values()):
        if worker.ready and worker.running is None:
            node.claim(worker)


def running(node: HandNode) -> dict[int, int]:
    """Return worker -> index of the call that it is in."""
    return {w.number: w.running[0] for w in node.workers.values() if w.running}


def slots(node: HandNode) -> int:
    return node.core.leases[LEASE].custody.dispatcher.slots


def finish(node: HandNode, worker: ModelWorker, seconds: float = 1.0) -> None:
    """End a call, which is long, so that each span is one call."""
    node.finish(worker, seconds)
    node.load()
    begin(node)


def finish_the_killed(node: HandNode) -> None:
    """End calls until those that were killed have run."""
    lease = node.core.leases[LEASE]
    while lease.custody.queue.retries or min(running(node).values()) < 4:
        for worker in [w for w in node.workers.values() if w.running]:
            finish(node, worker)


def deaths(node: HandNode) -> list[tuple[int, Death]]:
    """Return what was said of dead calls, by index."""
    found = []
    for said in node.outcomes():
        for run, own in unpack_runs(said.runs, node.payload[id(said)]):
            if run.kind is Kind.DEATH:
                found.append((run.lo, decode_death(own[0])))
    return found


def test_the_marks_of_small_and_big_nodes() -> None:
    assert (low(MEMORY), critical(MEMORY)) == (100, 50)
    assert (low(1 << 40), critical(1 << 40)) == (1 << 30, 1 << 29)


# --- func_ram ---


def test_a_fresh_worker_over_func_ram_is_killed_and_its_input_named_at_once() -> None:
    node = node_with(2, 4, func_ram=200)
    first, second = running(node)
    node.show_memory(PLENTY, {first: 201, second: 200})
    assert e.Kill(first) in node.effects
    assert second in node.workers
    figures = OutOfMemoryFigures(201, 200, MEMORY, PLENTY)
    assert deaths(node) == [(0, Death(*KILLED, 1, figures))]


def test_what_earlier_calls_left_is_not_charged_to_an_input_at_once() -> None:
    node = node_with(1, 6, func_ram=200)
    (worker,) = node.workers.values()
    finish(node, worker)
    node.show_memory(PLENTY, {worker.number: 300})
    node.load()
    assert deaths(node) == []
    node.finish_all()
    assert sum(hi - lo for said in node.outcomes() for lo, hi in said.done) == 6


def test_an_idle_worker_over_func_ram_is_replaced_and_nobody_blamed() -> None:
    node = node_with(1, 1, func_ram=200)
    (worker,) = node.workers.values()
    finish(node, worker)
    node.show_memory(PLENTY, {worker.number: 300})
    assert not node.workers
    node.hear(*assign((1, 2)))
    node.finish_all()
    assert deaths(node) == []


# --- the node runs short ---


def test_when_memory_is_low_no_call_is_begun_beside_the_running_ones() -> None:
    node = node_with(3, 9)
    first, *_ = node.workers.values()
    node.show_memory(LOW, dict.fromkeys(running(node), 300))
    finish(node, first)
    assert len(running(node)) == 3  # as before, not more
    assert not any(isinstance(effect, e.Kill) for effect in node.effects)


def test_who_uses_little_is_not_held_back_when_others_fill_the_machine() -> None:
    node = node_with(3, 9)
    for available in (LOW, CRITICAL, 0):
        node.show_memory(available, dict.fromkeys(running(node), 9))
    assert slots(node) == 3
    assert len(node.workers) == 3


def test_of_those_that_use_much_the_one_begun_last_is_killed_and_its_input_runs_later() -> None:
    node = node_with(3, 3)
    first, second, third = node.workers.values()
    node.finish(second, 1.0)  # idle, and holds nothing
    node.hear(*assign((3, 4)))
    begin(node)  # second has the call that was begun last
    node.show_memory(CRITICAL, {first.number: 350, second.number: 300, third.number: 100})
    assert second.number not in node.workers
    assert slots(node) == 2
    assert set(running(node).values()) == {0, 2}
    assert deaths(node) == []
    finish(node, first)
    assert 3 in running(node).values()
    finish(node, third)
    node.finish_all()
    assert list(node.core.leases[LEASE].custody.queue.places()) == []


def test_idle_workers_that_hold_much_go_first() -> None:
    node = node_with(3, 3)
    first, second, third = node.workers.values()
    node.finish(second, 1.0)
    node.show_memory(CRITICAL, {first.number: 400, second.number: 200, third.number: 300})
    assert set(node.workers) == {first.number, third.number}
    assert slots(node) == 2


def test_one_at_a_time_is_killed() -> None:
    node = node_with(4, 4)
    node.show_memory(0, dict.fromkeys(running(node), 250))
    assert len(node.workers) == 3


def test_an_input_that_runs_out_of_memory_alone_is_named_with_the_figures() -> None:
    node = node_with(1, 3)
    (number,) = node.workers
    node.show_memory(CRITICAL, {number: 900})
    figures = OutOfMemoryFigures(900, 0, MEMORY, CRITICAL)
    assert deaths(node) == [(0, Death(*KILLED, 1, figures))]


def test_alone_it_may_use_the_swap() -> None:
    node = node_with(1, 3)
    (number,) = node.workers
    node.show_memory(CRITICAL, {number: 900}, swap=500)
    assert number in node.workers


def test_alone_but_small_it_gets_three_tries_since_others_use_the_machine() -> None:
    node = node_with(1, 3)
    seen: list[tuple[int, Death]] = []
    for _ in range(3):
        assert seen == []
        node.load()
        while running(node).get(max(node.workers)) != 0:
            begin(node)
            if 0 not in running(node).values():
                finish(node, node.workers[max(node.workers)])
        node.show_memory(CRITICAL, {max(node.workers): 100})
        seen = deaths(node)
    assert [index for index, _ in seen] == [0]


def test_an_input_killed_again_and_again_ends_alone_and_is_named_only_then() -> None:
    node = node_with(16, 17)
    neighbours = []
    named: list[tuple[int, Death]] = []
    for _ in range(200):
        node.load()
        begin(node)
        now = running(node)
        giant = next((number for number, index in now.items() if index == 3), None)
        if giant is None:
            finish(node, next(w for w in node.workers.values() if w.running), 0.01)
            continue
        neighbours.append(len(now) - 1)
        node.show_memory(CRITICAL, dict.fromkeys(now, 20) | {giant: 800})
        named = deaths(node)
        if named:
            break
        node.hear(*assign((17 + 20 * len(neighbours), 37 + 20 * len(neighbours))))
    assert [index for index, _ in named] == [3]
    assert neighbours[0] == 15
    assert neighbours[-1] == 0
    assert len(neighbours) <= 4


def test_slots_come_back_one_by_one_when_memory_does() -> None:
    node = node_with(4, 40)
    for _ in range(2):
        node.show_memory(CRITICAL, dict.fromkeys(running(node), 250))
    assert slots(node) == 2
    finish_the_killed(node)
    seen = [slots(node)]
    for _ in range(40):
        node.show_memory(PLENTY, dict.fromkeys(running(node), 100))
        seen.append(slots(node))
        finish(node, next(w for w in node.workers.values() if w.running), 0.5)
        if slots(node) == 4:
            break
    assert sorted(set(seen)) == [2, 3, 4]
    assert seen == sorted(seen)
    begin(node)
    assert len(running(node)) == 4


def test_slots_do_not_come_back_without_room_for_one_more_call() -> None:
    node = node_with(2, 20)
    node.show_memory(CRITICAL, dict.fromkeys(running(node), 450))
    finish_the_killed(node)
    for _ in range(5):
        node.clock.now_s += RISE_MAX_S
        node.hear(m.Heartbeat())
        node.show_memory(500, dict.fromkeys(running(node), 450))
        assert slots(node) == 1
    node.show_memory(560, dict.fromkeys(running(node), 450))
    assert slots(node) == 2


def test_idle_workers_of_lowered_slots_are_not_dry() -> None:
    node = node_with(4, 4)
    for _ in range(2):
        node.show_memory(CRITICAL, dict.fromkeys(running(node), 250))
    dispatcher = node.core.leases[LEASE].custody.dispatcher
    assert (dispatcher.slots, dispatcher.dry()) == (2, 0)
    for worker in [w for w in node.workers.values() if w.running]:
        finish(node, worker)
    node.load()
    begin(node)
    assert len(running(node)) <= 2


# --- the kernel was quicker ---


def test_a_sigkill_while_memory_is_short_is_no_death_of_the_input() -> None:
    node = node_with(2, 2)
    first, second = node.workers
    node.show_memory(LOW, {first: 450, second: 450})
    node.kill(first)
    assert slots(node) == 1
    assert deaths(node) == []
    finish(node, node.workers[second])
    node.finish_all()
    assert deaths(node) == []


def test_a_sigkill_that_the_kernel_has_counted_is_for_memory() -> None:
    node = node_with(1, 2)
    (number,) = node.workers
    node.show_memory(PLENTY, {}, oom_kills=1)
    node.kill(number)
    ((index, said),) = deaths(node)
    assert index == 0
    assert said.memory == OutOfMemoryFigures(0, 0, MEMORY, PLENTY)


def test_what_the_kernel_killed_is_told_by_what_was_seen_before() -> None:
    node = node_with(1, 2)
    (number,) = node.workers
    node.show_memory(300, {number: 600})
    node.show_memory(900, {number: 0}, oom_kills=1)  # it is dead, and its memory is free
    node.kill(number)
    ((_, said),) = deaths(node)
    assert said.memory == OutOfMemoryFigures(600, 0, MEMORY, 300)


def test_another_sigkill_is_a_death_like_any_other() -> None:
    node = node_with(1, 1)
    for left in (2, 1, 0):
        node.load()
        begin(node)
        node.show_memory(PLENTY, dict.fromkeys(node.workers, 300))
        node.kill(max(node.workers))
        assert len(deaths(node)) == (0 if left else 1)
