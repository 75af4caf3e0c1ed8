from burla import remote_parallel_map


def process(number):
    return number**2


print(sum(remote_parallel_map(process, list(range(1000)), func_cpu=1, func_ram=1, spinner=False)))
