r"""A user's program under chaos: maps that leave a record of all that happened, as seen here.

    python chaos_caller.py SPEC

SPEC is JSON: `seed`, `user`, `effects` (a folder) and `jobs`, each a list of inputs, mean
milliseconds of a call, bytes of a result, how it is called ("list", "generator" or "detached"), and
bytes of an input besides its number. At SIGURG a job that is attached is detached, as by Ctrl-\.
In the file `kept`, here, is which jobs the scheduler has in its store: numbers, and their ids; in
`refused` the numbers of those that it had no room for in the end, which are begun once more.
"""

import hashlib
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from burla import Job, attach, remote_parallel_map
from burla.errors import ClusterUnreachable, JobDetached, JobFailed

TRY_S = 0.5  # until a detached job is tried again that was refused for a full disk


def value_of(seed: int, job: int, x: int, size: int) -> tuple[int, str, bytes]:
    """Return what the call of an input returns."""
    digest = hashlib.sha256(f"{seed} {job} {x}".encode()).digest()
    return x, digest.hex(), digest * (size // len(digest))


def input_of(seed: int, job: int, x: int, size: int) -> tuple[int, bytes]:
    """Return an input: its number, and bytes that no other input has."""
    digest = hashlib.sha256(f"input {seed} {job} {x}".encode()).digest()
    return x, digest * (size // len(digest))


def pause(seconds: float) -> None:
    """Sleep, also where the clock is a false one: `time.sleep` goes wrong with that."""
    select.select([], [], [], seconds)


def call(
    given: tuple[int, bytes],
    *,
    seed: int,
    user: str,
    job: int,
    mean_ms: float,
    size: int,
    folder: str,
) -> object:
    """Be slow, print, and write down when and where this was."""
    x, data = given
    assert given == input_of(seed, job, x, len(data)), f"input {x} has come as other bytes"
    me = f"{user} {job} {x} {os.environ['BURLA_NODE']}"
    with open(f"{folder}/{os.getpid()}", "ab", 0) as effects:
        effects.write(f"begun {me} {time.monotonic_ns()}\n".encode())
        print(f"{user} {job} {x}")
        pause(random.Random(f"{seed} {x}").expovariate(1000 / mean_ms))
        effects.write(f"ended {me} {time.monotonic_ns()}\n".encode())
    return value_of(seed, job, x, size)


LACKS = ("disk", "No space left on device", "Too many open files")  # in refusals that pass


def detach(function: Callable[..., object], inputs: list[tuple[int, bytes]], number: int) -> Job:
    """Detach a job; wait where the scheduler has no disk or descriptors left for it."""
    while True:
        try:
            return remote_parallel_map(function, inputs, detach=True)
        except JobFailed as error:
            if not any(word in str(error) for word in LACKS):
                raise
        with open("refused", "a") as file:
            file.write(f"{number}\n")
        time.sleep(TRY_S)


def run(
    function: Callable[..., object], inputs: list[tuple[int, bytes]], how: str, number: int
) -> list[object]:
    """Return all results of a job."""
    if how == "detached":
        return read(detach(function, inputs, number), number)
    got: list[object] = []
    try:
        for one in remote_parallel_map(function, inputs, generator=how == "generator"):
            got.append(one)  # what was had is not given again
    except JobDetached as error:
        return got + read(error.job, number)
    return got


def read(job: Job, number: int) -> list[object]:
    """Return all results of a job in the store."""
    with open("kept", "a") as file:
        file.write(f"{number} {job.id}\n")
    while True:
        try:
            return attach(job.id).results()
        except ClusterUnreachable:  # a scheduler that is killed again and again starts slowly
            time.sleep(TRY_S)


_pressed: list[object] = [signal.SIG_DFL]  # handlers that have had it


def press_quit(*_: object) -> None:
    r"""Press Ctrl-\, if that would not end this program: twice would."""
    if (handler := signal.getsignal(signal.SIGQUIT)) not in _pressed:
        _pressed.append(handler)
        signal.raise_signal(signal.SIGQUIT)


def main() -> None:
    """Run the jobs one after the other; end with 0 if all that came is right."""
    signal.signal(signal.SIGURG, press_quit)
    spec = json.loads(Path(sys.argv[1]).read_text())
    for job, (inputs, mean_ms, size, how, big) in enumerate(spec["jobs"]):
        own = {name: spec[name] for name in ("seed", "user")}
        function = partial(call, **own, job=job, mean_ms=mean_ms, size=size, folder=spec["effects"])
        got = run(function, [input_of(spec["seed"], job, x, big) for x in range(inputs)], how, job)
        wanted = [value_of(spec["seed"], job, x, size) for x in range(inputs)]
        is_whole = sorted(got) == wanted  # type: ignore[type-var]
        assert is_whole, f"job {job}, {how}: {len(got)} results of {inputs}"
        assert how == "generator" or got == wanted, f"job {job}, {how}: in the wrong order"


if __name__ == "__main__":
    main()
