import numpy
from burla import remote_parallel_map

data = numpy.random.default_rng(0).random(4_000_000)


def mean_of(begin):
    return data[begin : begin + 100_000].mean()


means = remote_parallel_map(mean_of, range(0, 3_900_000, 50_000))
print(round(float(sum(means)), 6))
