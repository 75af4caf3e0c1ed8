"""Memory that was freed is there for what comes next."""

import subprocess
import sys

import pytest

from burla.system.heap import MAPPED_BYTES_MIN

SCRIPT = f"""
import ctypes, resource
from burla.system.heap import keep_freed

if not hasattr(ctypes.CDLL(None), "mallopt"):
    print(0)
    raise SystemExit
keep_freed()
size = {MAPPED_BYTES_MIN // 8}

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del [bytearray(b"x") * size for _ in range(4)][:]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_was_freed_is_not_taken_anew_page_by_page() -> None:
    """Else 4 x 1024 pages would be."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 100
