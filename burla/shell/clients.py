"""One client per process and cluster, shared by all calls and threads, ended with the process."""

import atexit
import os
import sys
import threading
from collections.abc import Callable

import zmq
import zmq.utils.garbage as zmq_buffers  # before `_close_all` is registered: it ends after that

from burla.core.connection import SILENCE_S
from burla.errors import ClusterError
from burla.transport.client_hello import new_hello
from burla.transport.descriptors import lack

from .curves import curve_for
from .io_thread import IoThread

_lock = threading.Lock()
_clients: dict[str, IoThread] = {}
_parents: list[dict[str, IoThread]] = []  # of a forked child: kept, for its sockets are not ours


def client_for(
    address: str,
    failed: Callable[[float], str | None] | None,
    answer_s: float,
    silence_s: float = SILENCE_S,
) -> IoThread:
    """Return this process's client of the cluster at `address`; all threads share it.

    Args:
        address: endpoint of the scheduler.
        failed: says what happened if the cluster is known to be gone; see `IoThread`.
        answer_s: how long a job waits for the first answer.
        silence_s: how long the scheduler may be silent after that.

    Raises:
        ClusterError: this process cannot have one: too few descriptors, or it is about to end.
        NotAuthorised: the user has no key yet.
        BadSetting: the key lies open to others.
    """
    with _lock:
        client = _clients.get(address)
        if client is None or client.is_closed():
            curve = curve_for(address)
            if why := lack():
                raise ClusterError(f"cannot connect to the cluster at {address}: {why}")
            try:
                client = _clients[address] = IoThread(
                    new_hello(), address, failed, answer_s, curve, silence_s
                )
            except (zmq.ZMQError, OSError, RuntimeError) as error:
                raise ClusterError(
                    f"cannot connect to the cluster at {address}: {error}"
                ) from error
            # now, so that it runs before what was registered earlier: the end of a private cluster
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        return client


def close_idle(address: str) -> bool:
    """End this process's client of a cluster that is given up; return False while it has a job."""
    with _lock:
        client = _clients.get(address)
        if client is not None and not client.close_if_idle():
            return False
        _clients.pop(address, None)
        return True


def _close_all() -> None:
    closed = [client.close() for client in list(_clients.values())]
    if not all(closed):
        # libzmq may still send buffers of ours: pyzmq must not free them, as it does at the end.
        # Its thread, which waits for their release, keeps them until the process is gone.
        atexit.unregister(zmq_buffers.gc._atexit)


def _forget_in_child() -> None:
    global _lock, _clients
    _lock = threading.Lock()  # another thread of the parent may have held it
    _parents.append(_clients)
    _clients = {}


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
