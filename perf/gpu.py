"""Calls on GPUs, by hand, on a machine that has some and torch: `python -m perf.gpu`.

Shows that each call sees its own devices only, that no two calls share one at the same time, that
two jobs never do, and that CUDA tensors come back as such.
"""

import os
import subprocess
import threading
import time
from itertools import pairwise

from burla import Unsatisfiable, remote_parallel_map

Seen = tuple[str, int, float, float, float]  # devices, their number, result, begin, end


def multiply(size: int) -> Seen:
    """Multiply matrices on the first device of this process; return what it saw, and when."""
    import torch

    begun_s = time.monotonic()
    matrix = torch.ones(size, size, device="cuda:0")
    trace = float((matrix @ matrix).trace())
    torch.cuda.synchronize()
    own = os.environ["CUDA_VISIBLE_DEVICES"]
    return own, torch.cuda.device_count(), trace, begun_s, time.monotonic()


def tensor(x: int) -> object:
    """Return a tensor that lies on a device."""
    import torch

    return torch.full((3,), float(x), device="cuda:0")


def check_apart(seen: list[Seen]) -> None:
    """Fail if two of these calls had a device at the same time."""
    for device in {one for own, *_ in seen for one in own.split(",")}:
        times = sorted((b, e) for own, _, _, b, e in seen if device in own.split(","))
        assert all(first[1] <= second[0] for first, second in pairwise(times)), device


def main() -> None:
    """Run all of it, and print what was seen."""
    print(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout)
    begun_s = time.perf_counter()
    seen = remote_parallel_map(multiply, [2048] * 8, func_gpu=1)
    print(f"first map of 8 calls: {time.perf_counter() - begun_s:.2f} s")
    assert {count for _, count, *_ in seen} == {1}, seen
    assert {trace for _, _, trace, *_ in seen} == {2048.0**2}, seen
    check_apart(seen)
    begun_s = time.perf_counter()
    warm = remote_parallel_map(multiply, [2048] * 8, func_gpu=1)
    print(f"second map: {time.perf_counter() - begun_s:.3f} s")

    both: list[Seen] = []
    threads = [
        threading.Thread(
            target=lambda: both.extend(remote_parallel_map(multiply, [1024] * 4, func_gpu=1))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(both) == 8
    check_apart(both)
    print(f"devices seen: {sorted({own for own, *_ in seen + warm + both})}")

    results = remote_parallel_map(tensor, range(3), func_gpu=1)
    print("tensors come back:", [(str(one.device), one.tolist()) for one in results])  # type: ignore[attr-defined]
    try:
        remote_parallel_map(multiply, [1], func_gpu=1000)
    except Unsatisfiable as error:
        print(f"too many: {error}")


if __name__ == "__main__":
    main()
