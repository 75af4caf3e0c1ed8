"""What a worker may use: threads of numeric libraries, and what makes a template unsafe."""

import os
from collections.abc import MutableMapping

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
HARMLESS_THREADS = ("jemalloc_bg_thd",)  # it holds no lock that a forked child could need


def limit_threads(func_cpu: int, variables: MutableMapping[bytes, bytes]) -> None:
    """Let numeric libraries use `func_cpu` threads, unless `variables` say otherwise.

    Must come before they are imported.
    """
    for name in THREAD_VARIABLES:
        variables.setdefault(name.encode(), b"%d" % func_cpu)


def may_fork() -> bool:
    """Return whether this process has no thread that would leave a forked child in a bad state."""
    own = str(os.getpid())
    try:
        for thread in os.listdir("/proc/self/task"):
            if thread != own:
                with open(f"/proc/self/task/{thread}/comm") as file:
                    if file.read().strip() not in HARMLESS_THREADS:
                        return False
    except OSError:  # no /proc, or a thread that ends: say no, it only costs time
        return False
    return True
