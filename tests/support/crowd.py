"""Many users' jobs on many nodes that join and die, from one seed, and how well that went.

    PYTHONPATH=.:tests/support python -m crowd --seeds 300    # tells what the seeds were like
    PYTHONPATH=.:tests/support python -m crowd --seed 17      # plays one again, job by job

All times are virtual: a seed gives the same figures on every machine.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from network import Faults
from world import Caller, World

from burla.scheduler.core import warm_leases

QUIET = {"repeat": 0.0, "drop_published": 0.0, "cut_every_s": 0.0}
AFTER_S = 8.0  # then nothing of a job may be left: workers linger for 3 s, words get lost
CHECK_EVERY = 7  # events of a core; no divisor of anything that repeats
MEANS_S = (0.003, 0.01, 0.03, 0.1)  # of the calls of a job
EPSILON_S = 1e-9


@dataclass
class Report:
    """What became of one crowd."""

    seed: int
    troubled: bool  # nodes died, connections were cut
    makespan_s: float  # from the first job's start to the last one's end
    ideal_s: float  # no schedule could have been quicker, and none that doesn't know it all is
    callers: list[Caller] = field(default_factory=list)

    @property
    def waits_s(self) -> list[float]:
        """How long each job that has inputs waited for its first result."""
        return [c.first_s - c.started_s for c in self.callers if c.inputs]

    @property
    def fairness(self) -> float:
        """Jain's index of the waits, each with a second added: 1 all alike, 1/n one has it all.

        Without the second, 1 ms beside 3 ms would count as unfair.
        """
        waits = [1.0 + wait_s for wait_s in self.waits_s]
        return sum(waits) ** 2 / (len(waits) * sum(w * w for w in waits)) if waits else 1.0

    @property
    def excess(self) -> float:
        """Makespan over ideal."""
        return self.makespan_s / max(EPSILON_S, self.ideal_s)


def play(seed: int) -> Report:
    """Play one crowd to its end, check every result, and report."""
    chance = random.Random(seed)  # its own, so that the world's choices don't move with ours
    troubled = chance.random() < 0.5
    world = World(seed, Faults() if troubled else Faults(**QUIET), CHECK_EVERY)
    for _ in range(chance.randint(1, 6)):
        world.add_node(chance.randint(1, 8))
    clients = [world.add_client(f"user{n}") for n in range(chance.randint(1, 4))]
    starts = 0
    for _ in range(chance.randint(1, 8)):
        client, inputs = chance.choice(clients), chance.randint(0, 100)
        cap, mean_s = chance.choice([None, None, None, 2]), chance.choice(MEANS_S)

        def start(client=client, inputs=inputs, cap=cap, mean_s=mean_s) -> None:  # type: ignore[no-untyped-def]
            client.call(inputs, cap, mean_s)

        world.clock.after(chance.choice([0.0, 0.0, chance.uniform(0, 2)]), start)
        starts += 1
    for _ in range(chance.randint(0, 3) if troubled else chance.randint(0, 1)):
        world.clock.after(chance.uniform(0, 2), lambda: change(world, chance, troubled))
    world.run_until(
        lambda: (
            len(world.callers()) == starts
            and all(caller.finished or caller.error for caller in world.callers())
        )
    )
    callers = world.callers()
    for caller in callers:
        world.check_call(caller)
    report = Report(
        seed,
        troubled,
        max(caller.ended_s for caller in callers) - min(caller.started_s for caller in callers),
        ideal_s(world),
        callers,
    )
    world.faults.cut_every_s = 0.0
    world.run_for(AFTER_S)
    left = [node.name for node in world.nodes if node.alive and node.workers]
    assert not left, f"workers are left on {left} when all jobs are over"
    return report


class Uneven(World):
    """A quiet world in which the calls of every job take what the test says."""

    lengths_s: Sequence[float] = ()

    def call_s(self, job: bytes, index: int) -> float:
        return self.lengths_s[index]


def uneven(lengths_s: Sequence[float]) -> Uneven:
    """Return a world with calls of these lengths, each of which is told of by itself."""
    world = Uneven(6, Faults(**QUIET), check_every=50)
    world.lengths_s, world.stride_max = lengths_s, 1
    return world


def change(world: World, chance: random.Random, troubled: bool) -> None:
    """Let a node join, or die if another one lives."""
    alive = [node for node in world.nodes if node.alive]
    if troubled and len(alive) > 1 and chance.random() < 0.5:
        chance.choice(alive).die()
    else:
        world.add_node(chance.randint(1, 8))


def ideal_s(world: World) -> float:
    """Return the time in which slots that are always busy would have done it all.

    Work comes when its job starts, and nodes are there from their start to their death; no job is
    quicker than its longest call, or than its cap allows.
    """
    begin_s = min(caller.started_s for caller in world.callers())
    arrivals, alone_s = [], 0.0
    for caller in world.callers():
        calls = [world.call_s(caller.job, i) for i in range(caller.inputs)]
        arrivals.append((caller.started_s, sum(calls)))
        least_s = max(max(calls, default=0.0), sum(calls) / (caller.cap or len(calls) or 1))
        alone_s = max(alone_s, caller.started_s - begin_s + least_s)
    lives = [(node.born_s, node.died_s, node.cpus) for node in world.nodes]
    return max(alone_s, fluid_end_s(arrivals, lives) - begin_s)


def fluid_end_s(
    arrivals: Sequence[tuple[float, float]], lives: Iterable[tuple[float, float, int]]
) -> float:
    """Return when the last work is done if slots share all there is, like a fluid.

    Args:
        arrivals: (time, slot-seconds of work) each.
        lives: (born, died, slots) of each node.
    """
    lives = list(lives)
    ends = sorted({t for born, died, _ in lives for t in (born, died)} | {t for t, _ in arrivals})
    last_s = max((t for t, work_s in arrivals if work_s), default=0.0)
    work_s, end_s = 0.0, last_s
    for at_s, until_s in zip(ends, [*ends[1:], float("inf")], strict=True):
        work_s += sum(work for t, work in arrivals if t == at_s)
        rate = sum(slots for born, died, slots in lives if born <= at_s < died)
        if not work_s or not rate:
            continue
        end_s = at_s + work_s / rate
        work_s = max(0.0, work_s - rate * (until_s - at_s))
        if not work_s and at_s >= last_s:
            break
    return end_s


def again(seed: int) -> str:
    """Return the command that plays `seed` again."""
    return f"again: PYTHONPATH=.:tests/support python -m crowd --seed {seed}"


def spread(values: Iterable[float]) -> str:
    """Return least, median and greatest."""
    listed = list(values)
    return f"{min(listed):.2f} / {statistics.median(listed):.2f} / {max(listed):.2f}"


def main() -> int:
    """Play seeds and tell."""
    parser = argparse.ArgumentParser(prog="python -m crowd")
    parser.add_argument("--seed", type=int, help="play this one alone, and tell of each job")
    parser.add_argument("--seeds", type=int, default=200, help="how many (200), from 0 on")
    options = parser.parse_args()
    warm_leases.WARM_S_MAX = warm_leases.WARM_S  # each would be played for a minute more
    seeds = range(options.seeds) if options.seed is None else [options.seed]
    reports, failed = [], 0
    for seed in seeds:
        try:
            reports.append(play(seed))
        except Exception as error:
            if options.seed is not None:
                raise
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", again(seed), sep="\n")
    if options.seed is not None:
        for caller in reports[0].callers:
            print(
                f"{caller.user}: {caller.inputs} inputs at {caller.started_s:.3f} s, first result "
                f"after {caller.first_s - caller.started_s:.3f} s, all after "
                f"{caller.ended_s - caller.started_s:.3f} s"
            )
    if reports:
        print(f"{len(reports)} seeds played, {failed} failed; least / median / greatest:")
        print(f"  makespan over ideal: {spread(r.excess for r in reports)}")
        print(f"  makespan beyond ideal, s: {spread(r.makespan_s - r.ideal_s for r in reports)}")
        print(f"  longest wait of a job, s: {spread(max(r.waits_s, default=0.0) for r in reports)}")
        print(f"  fairness of the waits: {spread(r.fairness for r in reports)}")
        worst = max(reports, key=lambda r: r.makespan_s - r.ideal_s)
        print(f"  furthest from the ideal: seed {worst.seed}{', troubled' * worst.troubled}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
