from math import isqrt

from burla import Executor

NUMBERS = [112272535095293, 112582705942171, 115280095190773, 115797848077099, 1099726899285419]


def is_prime(n):
    return n > 1 and all(n % i for i in range(2, isqrt(n) + 1))


if __name__ == "__main__":
    with Executor() as executor:
        for number, prime in zip(NUMBERS, executor.map(is_prime, NUMBERS), strict=True):
            print(number, prime)
