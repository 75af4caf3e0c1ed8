from burla import remote_parallel_map


def square(x):
    return x * x


print(sum(remote_parallel_map(square, range(2000))))
