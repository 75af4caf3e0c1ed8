"""What the import of the public function loads, and what its first call begins with."""

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "burla.calling",
    "burla.starting",
    "cloudpickle",
    "msgspec",
    "subprocess",
    "zmq",
}

FIRST_CALL = """
import os, sys
import burla.private_cluster
from burla import remote_parallel_map

def start():
    print("loaded" if "burla.calling" in sys.modules else "ahead", flush=True)
    os._exit(0)

burla.private_cluster.private_cluster = start
CALL
print("not started")
"""


def run(code: str, **variables: str) -> str:
    """Return what a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip() or done.stderr


def test_the_import_loads_nothing_heavy() -> None:
    code = "import sys; from burla import remote_parallel_map; print(*sys.modules)"
    assert not HEAVY & set(run(code).split())


def test_what_a_first_call_loads_has_nothing_that_few_calls_need() -> None:
    loaded = set(run("import sys, burla.calling; print(*sys.modules)").split())
    assert not {"asyncio", "shutil", "lzma", "tomllib", "burla.detached"} & loaded


@pytest.mark.parametrize(
    ("call", "variables", "printed"),
    [
        ("remote_parallel_map(abs, [1])", {}, "ahead"),
        ("remote_parallel_map(abs, iter([1]))", {}, "ahead"),
        ("remote_parallel_map(abs, [])", {}, "not started"),
        ("try: remote_parallel_map(7, [1])\nexcept TypeError: pass", {}, "not started"),
        ("try: remote_parallel_map(abs, 7)\nexcept TypeError: pass", {}, "not started"),
        (
            "try: remote_parallel_map(abs, [1])\nexcept Exception: pass",
            {"BURLA_CLUSTER": "nonsense"},
            "not started",
        ),
        (
            "os.environ['BURLA_WORKER_PID'] = str(os.getpid()); remote_parallel_map(abs, [1])",
            {},
            "not started",
        ),
    ],
)
def test_a_private_cluster_starts_while_the_rest_is_loaded(
    call: str, variables: dict[str, str], printed: str
) -> None:
    assert run(FIRST_CALL.replace("CALL", call), **variables) == printed
