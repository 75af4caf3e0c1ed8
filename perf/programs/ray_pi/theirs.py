import random

import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)


@ray.remote
def inside(seed, samples):
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(samples))


hits = ray.get([inside.remote(seed, 100_000) for seed in range(20)])
print(4 * sum(hits) / (20 * 100_000))
