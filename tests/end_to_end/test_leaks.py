"""Two hundred jobs in a row leave nothing behind in any process: nor do errors and cancelled jobs.

All of it is seen from inside one script: it is the caller, and its daemons are its children.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from marked import caller

pytestmark = pytest.mark.slow

MEMORY_MAX = 6 << 20  # bytes, to a plateau: allocators keep some, pages shared in turn fill up
MEASURE = """
import gc, json, os, signal, sys, threading, time
import psutil
from burla import remote_parallel_map
from burla.nodelet.config import usable_cpus
from burla.nodelet.core.nodelet import blanks_of

BLANKS = blanks_of(usable_cpus())

def named():
    "Return the caller, the daemon of its private cluster, and the zygote below that."
    own = psutil.Process()
    found = {"caller": own}
    (found["daemon"],) = own.children()
    (found["zygote"],) = found["daemon"].children()
    return found

def measure():
    gc.collect()
    found = named()
    below = len(found["zygote"].children(recursive=True))
    return {
        name: {
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
            "memory": process.memory_info().rss,
            "processes": below,
        }
        for name, process in found.items()
    }

def settled(before):
    "Return a measure; what ends a moment after its job is waited for."
    until = time.monotonic() + 15
    while True:
        now = measure()
        if time.monotonic() > until or all(
            now[who][what] <= before[who][what]
            for who in now for what in ("descriptors", "threads", "processes")
        ):
            return now
        time.sleep(0.05)

def wait_idle():
    "Return when the workers of the last job are gone, and as many blanks wait as at the start."
    until = time.monotonic() + 15
    while len(named()["zygote"].children()) != BLANKS and time.monotonic() < until:
        time.sleep(0.05)

def report(job, warm, count):
    for _ in range(warm):
        job()
    wait_idle()
    before = measure()
    for _ in range(count):
        job()
    print(json.dumps([before, settled(before)]))
"""
JOBS = {
    "results": """
def job():
    assert remote_parallel_map(lambda x: x + 1, range(100)) == list(range(1, 101))
report(job, 60, 200)
""",
    "prints and big things": """
def f(x):
    print("line of", len(x))
    return x

def job():
    assert remote_parallel_map(f, [bytes(100_000)] * 4) == [bytes(100_000)] * 4
report(job, 30, 100)
""",
    "errors, deaths and cancelled jobs": """
def fail(x):
    if x == 7:
        raise ValueError(x)
    return x

def die(x):
    os._exit(1)

def stay(x):
    if x:
        time.sleep(60)
    return x

def job():
    try:
        remote_parallel_map(fail, range(20))
    except ValueError:
        pass
    try:
        remote_parallel_map(die, [0])
    except Exception:
        pass
    results = remote_parallel_map(stay, range(6), generator=True)
    next(results)
    results.close()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        remote_parallel_map(stay, range(6))
    except KeyboardInterrupt:
        pass

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
report(job, 8, 16)
""",
    "threads that come and go": """
def job():
    def call():
        assert remote_parallel_map(abs, [-1, -2]) == [1, 2]
    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
report(job, 15, 30)
""",
}


@pytest.mark.parametrize("what", JOBS)
def test_many_jobs_in_a_row_leak_nothing(tmp_path: Path, what: str) -> None:
    with caller(MEASURE + JOBS[what], tmp_path) as script:
        status, out, err = script.wait_end(55)
    assert status == 0, err
    before, after = json.loads(out.splitlines()[-1])
    grown: dict[str, dict[str, Any]] = {
        who: {thing: after[who][thing] - count for thing, count in things.items()}
        for who, things in before.items()
    }
    assert set(grown) == {"caller", "daemon", "zygote"}
    for who, things in grown.items():
        assert things.pop("memory") < MEMORY_MAX, (who, before[who], after[who])
        assert max(things.values()) <= 0, (who, grown)
