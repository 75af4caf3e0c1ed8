"""Libraries that replace Python's threads: under theirs, our thread would never get its turn."""

import sys

from .errors import ClusterError


def refuse_green_threads() -> None:
    """Raise if gevent or eventlet has replaced `threading` in this process.

    The thread that talks to the cluster waits in libzmq, not in their loop: under them it would
    wait for ever, and the caller with it.

    Raises:
        ClusterError: one of them has; says which, and what to do.
    """
    if "gevent.monkey" not in sys.modules and "eventlet.patcher" not in sys.modules:
        return
    for name, is_patched in (("gevent", _by_gevent), ("eventlet", _by_eventlet)):
        if is_patched():
            raise ClusterError(
                f"{name} has replaced Python's threads in this process, and burla needs real ones:"
                f" patch without them ({_INSTEAD[name]}), or call remote_parallel_map in a process"
                " that is not patched"
            )


_INSTEAD = {
    "gevent": "monkey.patch_all(thread=False, queue=False)",
    "eventlet": "eventlet.monkey_patch(thread=False, select=False)",
}


def _by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _by_eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "select")))
