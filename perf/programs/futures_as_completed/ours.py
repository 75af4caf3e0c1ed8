import hashlib
from concurrent.futures import as_completed

from burla import Executor


def digest(number):
    data = str(number).encode()
    for _ in range(2000):
        data = hashlib.sha256(data).digest()
    return data[0]


if __name__ == "__main__":
    with Executor() as executor:
        futures = {executor.submit(digest, number): number for number in range(400)}
        print(sum(futures[future] * future.result() for future in as_completed(futures)))
