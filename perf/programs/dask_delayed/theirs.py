import time

import dask


@dask.delayed
def load(n):
    time.sleep(0.05)
    return n


@dask.delayed
def double(n):
    time.sleep(0.05)
    return 2 * n


if __name__ == "__main__":
    total = dask.delayed(sum)([double(load(n)) for n in range(20)])
    print(total.compute(scheduler="processes", num_workers=2))
