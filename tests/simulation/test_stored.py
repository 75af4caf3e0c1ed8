"""Detached jobs: the real cores and the keeper, on a disk that loses what was not synced."""

import os
from collections import Counter

import pytest
from network import Faults, pieces_sent
from stored_world import StoredWorld, detach, small_pieces

SEEDS = range(int(os.environ.get("BURLA_SEEDS", "25")))
FAILED = [2595]  # before
NO_FAULTS = Faults(repeat=0.0, drop_published=0.0, cut_every_s=0.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_scheduler_that_is_killed_again_and_again_runs_nothing_twice(seed: int) -> None:
    """Its caller is gone as soon as all is stored; only schedulers die."""
    world = StoredWorld(seed, NO_FAULTS)
    for _ in range(3):
        world.add_node(2)
    world.mean_s = 0.05
    if seed % 3 == 0:
        world.big, world.stride_max = 0.5, 1
    client = world.add_client()
    job = detach(client, 300)
    world.run_until(lambda: client.callers[job].finished)
    client.die()
    for kill in range(4):
        world.clock.after(world.random.uniform(0.1, 3.0) + 3.0 * kill, world.start_scheduler)
    world.run_until(lambda: world.has_ended(job))
    world.check_kept(job, 300)
    assert Counter(world.ran[job]) == Counter(range(300))
    _, output = world.results(job)
    assert sorted(output.split()) == sorted(world.printed[job].split())


def play(seed: int, big_inputs: float = 0.0) -> None:
    """Detached jobs, while schedulers and nodes die, the disk is full, connections are cut."""
    world = StoredWorld(seed)
    if big_inputs:
        world.big_inputs, world.old_nodes = big_inputs, (0.0, 0.3, 1.0)[seed % 3]
    chance = world.random
    if seed % 4 == 0:
        world.big, world.stride_max = 0.5, 2
    for _ in range(chance.randint(1, 3)):
        world.add_node(chance.randint(1, 4))
    clients = [world.add_client() for _ in range(chance.randint(1, 2))]
    jobs = {}
    for client in clients:
        for _ in range(chance.randint(1, 2)):
            inputs = chance.randint(0, 150)
            jobs[detach(client, inputs)] = client, inputs
    for _ in range(chance.randint(0, 6)):
        world.clock.after(chance.uniform(0, 4), lambda: fault(world))
    callers = world.callers()
    world.run_until(lambda: all(caller.finished or caller.error for caller in callers))
    kept = [job for job, (client, _) in jobs.items() if client.callers[job].finished]
    assert len(kept) == len(jobs) or world.disk.full_until_s, [c.error for c in callers]
    for client in clients:
        client.die()
    world.run_until(lambda: all(world.has_ended(job) for job in kept), 400.0)
    for job in kept:
        world.check_kept(job, jobs[job][1])
    world.faults.cut_every_s = 0.0
    world.run_for(20.0)
    for node in world.nodes:
        assert not node.alive or not node.workers, "workers are left when all jobs are over"


def fault(world: StoredWorld) -> None:
    chance = world.random
    alive = [node for node in world.nodes if node.alive]
    match chance.randint(0, 6):
        case 0 if len(alive) > 1:
            chance.choice(alive).die()
        case 1:
            world.add_node(chance.randint(1, 4))
        case 2:
            world.disk.full_until_s = world.clock.now_s + chance.uniform(0.1, 10.0)
        case 3:
            for node in alive:
                node.wire.cut()
        case _:
            world.start_scheduler()


@pytest.mark.parametrize("seed", [*SEEDS, *FAILED])
def test_what_was_safe_is_whole_and_is_never_run_again(seed: int) -> None:
    try:
        play(seed)
    except BaseException as error:
        error.add_note(f"again: pytest 'tests/simulation/test_stored.py' -k '[{seed}]'")
        raise


@pytest.mark.parametrize("seed", range(12))
def test_big_inputs_in_the_store_come_through_whatever_happens(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    play(seed, big_inputs=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_dead_scheduler_had_on_its_disk_of_a_big_input_is_not_sent_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    world = StoredWorld(seed, NO_FAULTS)
    world.add_node(1)
    world.big_inputs = 1.0
    client = world.add_client()
    sent = pieces_sent(client.wire, monkeypatch)
    job = detach(client, 64)
    world.run_until(lambda: len(sent) > 4)
    world.start_scheduler()
    world.run_until(lambda: client.callers[job].finished)
    client.die()
    world.run_until(lambda: world.has_ended(job))
    world.check_kept(job, 64)
    twice = [piece for piece in set(sent) if sent.count(piece) > 1]
    assert len(twice) <= 3, "more than what was under way"
