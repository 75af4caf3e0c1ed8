from multiprocessing import Pool


def collatz(start):
    steps = 0
    while start != 1:
        start, steps = (start // 2 if start % 2 == 0 else 3 * start + 1), steps + 1
    return steps


if __name__ == "__main__":
    with Pool(2) as pool:
        print(max(pool.imap_unordered(collatz, range(1, 30_000), chunksize=100)))
