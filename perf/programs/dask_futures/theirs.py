from dask.distributed import Client


def word_lengths(number):
    return len(f"{number:,} bottles of beer".split(","))


if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        print(sum(client.gather(client.map(word_lengths, range(0, 2_000_000, 1000)))))
