"""A user's program under chaos: maps that leave a record of all that happened, as it was seen here.

    python chaos_caller.py SPEC

SPEC is JSON: `seed`, `user`, `effects` (a folder) and `jobs`, each a list of inputs, mean
milliseconds of a call, bytes of a result, and whether results are streamed.
"""

import hashlib
import json
import os
import random
import sys
import time
from functools import partial
from pathlib import Path

from burla import remote_parallel_map


def value_of(seed: int, job: int, x: int, size: int) -> tuple[int, str, bytes]:
    """Return what the call of an input returns."""
    digest = hashlib.sha256(f"{seed} {job} {x}".encode()).digest()
    return x, digest.hex(), digest * (size // len(digest))


def call(
    x: int, *, seed: int, user: str, job: int, mean_ms: float, size: int, folder: str
) -> object:
    """Be slow, print, and write down when and where this was."""
    me = f"{user} {job} {x} {os.environ['BURLA_NODE']}"
    with open(f"{folder}/{os.getpid()}", "ab", 0) as effects:
        effects.write(f"begun {me} {time.monotonic_ns()}\n".encode())
        print(f"{user} {job} {x}")
        time.sleep(random.Random(f"{seed} {x}").expovariate(1000 / mean_ms))
        effects.write(f"ended {me} {time.monotonic_ns()}\n".encode())
    return value_of(seed, job, x, size)


def main() -> None:
    """Run the jobs one after the other; end with 0 if all that came is right."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    for job, (inputs, mean_ms, size, generator) in enumerate(spec["jobs"]):
        own = {name: spec[name] for name in ("seed", "user")}
        function = partial(call, **own, job=job, mean_ms=mean_ms, size=size, folder=spec["effects"])
        got = list(remote_parallel_map(function, range(inputs), generator=generator))
        wanted = [value_of(spec["seed"], job, x, size) for x in range(inputs)]
        assert sorted(got) == wanted, f"job {job}: {len(got)} results of {inputs}"
        assert generator or got == wanted, f"job {job}: results in the wrong order"


if __name__ == "__main__":
    main()
