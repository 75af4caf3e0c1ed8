"""The private cluster of a process: scheduler and nodelet in one loop, with a direct line between.

Both are what they are elsewhere; only the line is another one, so that a call costs one process
less on its way and back. `burla/private_cluster.py` starts it, and nobody else: it has no options.
Its process ends when either of the two does, or its owner.

A script waits for all of this. So its zygote is forked from it before it is anything itself: a
Python is started once, and while the zygote imports what workers need, we import the rest.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from burla.nodelet.shell.forking import fork_module
from burla.nodelet.shell.launching import Launched, launch_module, launch_zygote, make_scratch
from burla.system.garbage import NoCollections
from burla.system.hash_seed import own_seed
from burla.system.owner import Owner
from burla.system.preparing import PRIVATE_LEVEL, prepare, prepare_descriptors
from burla.transport.descriptors import SPARE

Begun = tuple[str, Launched]  # a scratch directory, and the zygote of the workers in it


def main(arguments: Sequence[str]) -> NoReturn:
    """Be the private cluster: `SOCKET OWNER SEED`, the last one of `hash()` in all workers.

    The path of the socket lies in the owner's directory: by that, all that is forked from here is
    told by its command line.
    """
    socket, owner, seed = arguments[0], Owner.parse(arguments[1]), int(arguments[2])
    assert owner.directory is not None, arguments
    prepare_descriptors(SPARE)
    # What calls make is for whom it would be for if the caller made it, who may use it in any case.
    os.umask(os.umask(0) & 0o077)
    begun: Begun | None = None
    with suppress(OSError):  # it is tried again, and told, where both run
        scratch = make_scratch(owner.directory)
        begun = scratch, _begin_zygote(scratch, seed)
    os.umask(0o077)  # a socket file is for this user only: no keys guard it
    prepare("burla-cluster", PRIVATE_LEVEL, SPARE)

    with NoCollections():
        from .both import run  # the rest is imported while the zygote starts

    status = run(f"ipc://{socket}", owner, seed, begun)
    logging.shutdown()
    os._exit(status)  # nothing is left to be ended: to take down all modules takes a while


def _begin_zygote(scratch: str, seed: int) -> Launched:
    """Begin what forks workers.

    Raises:
        OSError: it cannot be.
    """
    flags = sys.flags
    is_bare = flags.ignore_environment or flags.no_site or flags.no_user_site  # as the caller is
    if is_bare or own_seed() != seed:
        return launch_zygote(launch_module("zygote", seed, scratch))
    path = getattr(sys.modules["__main__"], "own_path", sys.path)  # without that of the caller
    return launch_zygote(fork_module("zygote", path, scratch))
