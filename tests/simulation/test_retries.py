"""Calls that fail and are called again, while whoever counts them dies."""

import os

import pytest
from network import Faults
from world import Caller, World, result_of

from burla.protocol.messages import CallPolicy

SEEDS = range(int(os.environ.get("BURLA_SEEDS", "15")))
FOREVER = 1000  # tries that fail
QUIET = Faults(repeat=0.0, drop_published=0.0, cut_every_s=0.0)


def fault(world: World, *, kinds: int) -> None:
    """Kill all workers, restart the scheduler; of more kinds, cut all connections, kill a node."""
    alive = [node for node in world.nodes if node.alive]
    match world.random.randint(0, kinds - 1):
        case 0:
            for node in alive:
                for worker in list(node.workers.values()):
                    node.worker_dies(worker)
        case 1:
            world.start_scheduler()
        case 2:
            for node in alive:
                node.wire.cut()
        case _ if len(alive) > 1:
            world.random.choice(alive).die()
            world.add_node(2)
        case _:
            pass


def play(seed: int, faults: Faults, kinds: int, excess: int) -> None:
    """Let some calls fail a few times, some for ever, under faults of so many kinds.

    `excess`: how many times as many tries as were asked for may have failed at last.
    """
    world = World(seed, faults)
    chance = world.random
    for _ in range(chance.randint(1, 3)):
        world.add_node(chance.randint(1, 4))
    policy = CallPolicy(
        goes_on=True,
        retries=chance.randint(1, 3),
        backoff_s=chance.choice([0.0, 0.05]),
        jitter=0.5,
        other_node=chance.random() < 0.5,
    )
    client = world.add_client()
    callers = [client.call(chance.randint(1, 60), policy=policy) for _ in range(2)]
    for caller in callers:
        world.flaky[caller.job] = {
            index: chance.choice([1, policy.retries, FOREVER])
            for index in range(caller.inputs)
            if chance.random() < 0.3
        }
    for _ in range(chance.randint(0, 2)):  # a third death of all workers may be one too many
        world.clock.after(chance.uniform(0, 1), lambda: fault(world, kinds=kinds))
    world.run_until(lambda: all(caller.finished or caller.error for caller in callers))
    for caller in callers:
        check(world, caller, policy.retries, excess)


def check(world: World, caller: Caller, retries: int, excess: int = 1) -> None:
    assert not caller.error
    assert sorted(caller.results) == list(range(caller.inputs))
    flaky = world.flaky[caller.job]
    for index, result in caller.results.items():
        tries = world.failed[caller.job, index]
        if flaky.get(index, 0) <= retries:
            assert result == result_of(caller.job, index), index
        else:
            assert result == b"failed", index
            assert retries + 1 <= tries <= (retries + 1) * excess, (index, tries)


def again(seed: int, faults: Faults, kinds: int, excess: int) -> None:
    try:
        play(seed, faults, kinds, excess)
    except BaseException as error:
        error.add_note(f"again: pytest 'tests/simulation/test_retries.py' -k '[{seed}]'")
        raise


@pytest.mark.parametrize("seed", SEEDS)
def test_each_try_counts_when_workers_and_schedulers_die(seed: int) -> None:
    again(seed, QUIET, kinds=2, excess=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_node_has_told_nobody_may_be_tried_again_and_no_more(seed: int) -> None:
    again(seed, Faults(), kinds=4, excess=4)


def test_without_deaths_the_number_of_tries_is_exact() -> None:
    world = World(5, QUIET)
    world.add_node(4)
    world.add_node(4)
    policy = CallPolicy(goes_on=True, retries=2, other_node=True)
    caller = world.add_client().call(200, policy=policy)
    world.flaky[caller.job] = dict.fromkeys(range(0, 200, 3), FOREVER)
    world.run_until(lambda: caller.finished)
    check(world, caller, 2)
