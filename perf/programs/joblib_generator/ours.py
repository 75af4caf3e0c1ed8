from burla import remote_parallel_map


def digits(n):
    return sum(map(int, str(3**n)))


results = remote_parallel_map(digits, range(1500), generator=True, ordered=True)
print(sum(results))
