import time

import burla


def load(n):
    time.sleep(0.05)
    return n


def double(n):
    time.sleep(0.05)
    return 2 * n


if __name__ == "__main__":
    total = sum(burla.remote_parallel_map(lambda n: double(load(n)), range(20)))
    print(total)
