import numpy
from joblib import Parallel, delayed

data = numpy.random.default_rng(0).random(4_000_000)


def mean_of(data, begin):
    return data[begin : begin + 100_000].mean()


means = Parallel(n_jobs=2)(delayed(mean_of)(data, begin) for begin in range(0, 3_900_000, 50_000))
print(round(float(sum(means)), 6))
