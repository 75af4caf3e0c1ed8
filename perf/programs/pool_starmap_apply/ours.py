from burla import Pool


def power(base, exponent):
    return pow(base, exponent, 1_000_003)


if __name__ == "__main__":
    with Pool(2) as pool:
        print(sum(pool.starmap(power, [(n, 3) for n in range(200_000)])))
        waiting = [pool.apply_async(power, (n, 5)) for n in range(500)]
        print(sum(result.get(timeout=60) for result in waiting))
