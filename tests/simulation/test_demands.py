"""What users may demand of the policy when there are more jobs than nodes, in virtual time."""

import pytest
from crowd import uneven
from network import Faults
from world import Caller, World

from perf.aims import IN_ORDER, WAY_S
from perf.balance import orders
from perf.uneven import in_order_s

CALL_S = 0.1
# For how long a node may stay with one user while another waits, and a hand-over: calls that run
# are waited for, workers end, others load the function.
TURN_S, HAND_OVER_S = 2.0, 1.0
FAIR = 1.25  # times a fair split: turns and hand-overs cost something
TOLD_S = 10.0  # for a client to reconnect, say what it lacks, and hear that it is lost


def call_at(world: World, at_s: float, user: str, inputs: int, jobs: list[Caller]) -> None:
    """Let a client of `user` call at `at_s`; the call is put into `jobs`."""
    world.clock.at(at_s, lambda: jobs.append(world.add_client(user).call(inputs)))


def run(world: World, count: int, jobs: list[Caller]) -> None:
    """Let time pass until `count` calls have been made and are over; check them."""
    world.run_until(lambda: len(jobs) == count and all(job.finished for job in jobs), 1_000.0)
    for job in jobs:
        world.check_call(job)


def wait_s(job: Caller) -> float:
    return job.first_s - job.started_s


@pytest.mark.parametrize("order", ["longest last", "ascending", "descending", "random"])
def test_uneven_calls_over_four_nodes_take_hardly_longer_than_in_order(order: str) -> None:
    world = uneven(orders(2_000)[order])
    for _ in range(4):
        world.add_node(8)
    caller = world.add_client().call(2_000)
    world.run_until(lambda: caller.finished)
    world.check_call(caller)
    took_s = caller.ended_s - caller.started_s
    assert took_s <= IN_ORDER * in_order_s(world.lengths_s, 32) + WAY_S


def test_a_newcomer_waits_for_a_turn_and_not_for_a_whole_foreign_job() -> None:
    world = uneven([CALL_S] * 1_000)
    world.add_node(4)  # the only one
    jobs: list[Caller] = []
    call_at(world, 0.0, "alice", 1_000, jobs)  # 25 s of work
    call_at(world, 1.0, "bob", 20, jobs)
    run(world, 2, jobs)
    assert wait_s(jobs[1]) <= TURN_S + CALL_S + HAND_OVER_S


def test_five_users_on_two_nodes_all_start_and_none_ends_long_after_its_share() -> None:
    world = uneven([CALL_S] * 400)
    for _ in range(2):
        world.add_node(4)
    jobs: list[Caller] = []
    for number in range(5):
        call_at(world, 0.1 * number, f"user{number}", 400, jobs)
    run(world, 5, jobs)
    turns = 5 / 2  # of all others, before one's own
    assert max(map(wait_s, jobs)) <= turns * (TURN_S + CALL_S + HAND_OVER_S)
    all_s = 5 * 400 * CALL_S / 8  # all of them together, on all slots
    assert max(job.ended_s for job in jobs) <= FAIR * all_s


def test_a_user_with_one_job_gets_as_much_as_one_with_many() -> None:
    world = uneven([CALL_S] * 400)
    for _ in range(2):
        world.add_node(4)
    many = world.add_client("many")
    jobs = [many.call(400) for _ in range(4)]
    call_at(world, 0.5, "one", 400, jobs)
    run(world, 5, jobs)
    half_s = 400 * CALL_S / 4  # one's work on half of the slots
    assert wait_s(jobs[4]) <= TURN_S + CALL_S + HAND_OVER_S
    assert jobs[4].ended_s - jobs[4].started_s <= FAIR * half_s + HAND_OVER_S


def test_a_short_job_behind_long_ones_does_not_wait_for_their_ends() -> None:
    world = uneven([CALL_S] * 800)
    for _ in range(3):
        world.add_node(4)
    jobs: list[Caller] = []
    for number in range(3):
        call_at(world, 0.0, f"long{number}", 800, jobs)  # 20 s each, on a node of its own
    call_at(world, 1.0, "short", 8, jobs)
    run(world, 4, jobs)
    short_s = jobs[3].ended_s - jobs[3].started_s
    assert short_s <= TURN_S + CALL_S + HAND_OVER_S + 8 * CALL_S / 4


def test_nobody_is_robbed_of_a_node_who_ends_sooner_than_it_could_be_handed_over() -> None:
    world = uneven([CALL_S] * 12)
    world.add_node(4)
    jobs: list[Caller] = []
    call_at(world, 0.0, "alice", 12, jobs)  # 0.3 s in all
    call_at(world, 0.05, "bob", 12, jobs)
    run(world, 2, jobs)
    assert jobs[0].ended_s - jobs[0].started_s <= 0.3 + WAY_S
    assert jobs[1].ended_s - jobs[0].ended_s <= 0.3 + 2 * WAY_S


def test_a_client_that_was_cut_off_hears_all_the_same_that_a_lease_is_lost() -> None:
    """Found by a crowd: the client had all results, and waited for output that nobody had."""
    world = World(10, Faults(repeat=0.0, drop_published=1.0, cut_every_s=0.0))
    node, client = world.add_node(), world.add_client()
    caller = client.call(100)
    world.run_until(lambda: len(caller.results) == 100)
    assert not caller.finished, "all output has come; the others of this test mean nothing"
    node.die()
    lease_lost = False

    def is_told_to_nobody() -> bool:
        nonlocal lease_lost
        client.wire.cut()
        lease_lost = not world.core.state.nodes
        return lease_lost

    world.run_until(is_told_to_nobody)
    world.run_until(lambda: caller.finished, limit_s=world.clock.now_s + TOLD_S)
    assert caller.job in world.lost_output
