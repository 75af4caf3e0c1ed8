"""Big inputs on the private cluster lie in memory that the workers map; nothing of it is left."""

import os
from pathlib import Path

import pytest
from scripts import succeed
from waiting import wait_until

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
import numpy as np
from burla import remote_parallel_map

def use(array):
    array += 1  # its own copy
    return os.path.exists("/dev/shm"), float(array[0]), float(array.sum())

arrays = [np.full(1 << 18, float(n)) for n in range(200)]  # 400 MB: more than lie there at once
results = remote_parallel_map(use, arrays)
assert [first for _, first, _ in results] == [n + 1.0 for n in range(200)]
assert [total for _, _, total in results] == [(n + 1.0) * (1 << 18) for n in range(200)]
assert all((array == n).all() for n, array in enumerate(arrays))
memory = [name for name in os.listdir("/dev/shm") if name.startswith(f"burla-{os.getpid()}-")]
assert [os.listdir(f"/dev/shm/{name}") for name in memory] == [[]], memory
ENDING
"""


def left_of(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"burla-{pid}-")]


@pytest.mark.parametrize(
    "ending", ["print(os.getpid())", "print(os.getpid(), flush=True); os._exit(0)"]
)
def test_nothing_is_left_in_memory(ending: str, tmp_path: Path) -> None:
    pid = int(succeed(SCRIPT.replace("ENDING", ending), tmp_path, private=True))
    wait_until(lambda: not left_of(pid), "the directory in memory is gone")
