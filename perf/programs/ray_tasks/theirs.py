import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)


@ray.remote
def square(x):
    return x * x


print(sum(ray.get([square.remote(x) for x in range(2000)])))
