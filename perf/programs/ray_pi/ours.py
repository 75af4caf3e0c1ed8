import random

from burla import remote_parallel_map


def inside(seed, samples):
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(samples))


hits = remote_parallel_map(inside, [(seed, 100_000) for seed in range(20)])
print(4 * sum(hits) / (20 * 100_000))
