"""Inputs that take their node with them, and nodes that die by themselves, from many seeds."""

import os

import pytest
from network import Faults
from world import World

SEEDS = range(int(os.environ.get("BURLA_SEEDS", "12")))
NO_FAULTS = Faults(repeat=0.0, drop_published=0.0, cut_every_s=0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_that_takes_its_node_is_named_and_everybody_else_is_served(seed: int) -> None:
    world = World(seed)
    chance = world.random
    world.mean_s = chance.choice([0.0005, 0.005, 0.3])
    for _ in range(chance.randint(1, 4)):
        world.add_node(chance.randint(1, 6))
    victim = world.add_client().call(chance.randint(1, 300), chance.choice([None, None, 2]))
    others = [world.add_client(f"u{i}").call(chance.randint(1, 200)) for i in range(2)]
    bad = chance.randrange(victim.inputs)
    world.node_poison.add((victim.job, bad))
    for _ in range(chance.randint(0, 2)):
        world.clock.after(chance.uniform(0, 3), lambda: _die(world))
    callers = world.callers()
    world.run_until(lambda: all(caller.finished or caller.error for caller in callers), 900.0)
    assert victim.failed_index == bad, victim.error
    assert len(victim.lost_nodes) >= 3
    assert world.deaths <= 4
    for caller in others:
        world.check_call(caller)


def _die(world: World) -> None:
    """Let a node die of nothing that ran there, and another one come."""
    alive = [node for node in world.nodes if node.alive]
    if alive:
        world.random.choice(alive).die()
    world.add_node(world.random.randint(1, 4))


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_die_by_themselves_are_nobodys_fault(seed: int) -> None:
    """Nearly three quarters of all nodes die in a job, each after a while: no input is named."""
    world = World(seed, NO_FAULTS)
    chance = world.random
    world.mean_s = 0.05
    for _ in range(3):
        world.add_node(chance.randint(1, 4))
    callers = [world.add_client(f"u{i}").call(chance.randint(100, 400)) for i in range(2)]
    for death in range(8):
        world.clock.after(death * 1.5 + chance.uniform(0.3, 1.0), lambda: _die(world))
    world.run_until(lambda: all(caller.finished or caller.error for caller in callers), 900.0)
    for caller in callers:
        world.check_call(caller)


def test_one_in_a_million_is_found_by_three_deaths() -> None:
    world = World(1, NO_FAULTS, check_every=1000)
    world.mean_s, world.stride_max = 1e-5, 500
    world.add_node(8)
    client = world.add_client()
    caller = client.call(100_000)
    world.node_poison.add((caller.job, 77_777))
    world.run_until(lambda: bool(caller.error) or caller.finished)
    assert (caller.failed_index, world.deaths) == (77_777, 3)


def test_nodes_that_were_only_cut_off_take_their_counts_back() -> None:
    """Four times all nodes are away for long enough to be lost, and come back."""
    world = World(2, NO_FAULTS)
    world.mean_s = 30.0
    for _ in range(2):
        world.add_node(1)
    caller = world.add_client().call(2)
    for _ in range(4):
        world.run_for(3.0)
        for node in world.nodes:
            node.wire.cut(3.0)
        world.run_until(lambda: not world.core.state.nodes)
    world.run_until(lambda: caller.finished or bool(caller.error), 900.0)
    world.check_call(caller)
