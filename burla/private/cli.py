"""The private cluster of a process: scheduler and nodelet in one loop, with a direct line between.

Both are what they are elsewhere; only the line is another one, so that a call costs one process
less on its way and back. `burla/private_cluster.py` starts it, and nobody else: it has no options.
Its process ends when either of the two does, or its owner.

A script waits for all of this, so its zygote is started first: while that imports, we do.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from burla.nodelet.shell.launching import Launched, launch_module, launch_zygote, make_scratch
from burla.system.hash_seed import own_seed, seed_of
from burla.system.owner import Owner
from burla.system.preparing import PRIVATE_LEVEL, prepare
from burla.transport.descriptors import SPARE

Begun = tuple[str, Launched]  # a scratch directory, and the zygote of the workers in it


def main(arguments: Sequence[str]) -> int:
    """Be the private cluster: `ADDRESS OWNER`; return the exit code."""
    address, owner = arguments[0], Owner.parse(arguments[1])
    assert owner.directory is not None, arguments
    prepare("burla-cluster", PRIVATE_LEVEL, SPARE)
    os.umask(0o077)  # a socket file is for this user only: no keys guard it
    seed = own_seed()  # our environment is that of the caller
    if seed is None:
        seed = seed_of(os.path.realpath(owner.directory))
    begun: Begun | None = None
    with suppress(OSError):  # it is tried again, and told, where both run
        scratch = make_scratch(owner.directory)
        begun = scratch, launch_zygote(launch_module("zygote", seed, scratch))

    from .both import run  # the rest is imported while the zygote starts

    return run(address, owner, seed, begun)
