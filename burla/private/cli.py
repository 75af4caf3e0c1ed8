"""The private cluster of a process: scheduler and nodelet in one loop, with a direct line between.

Both are what they are elsewhere; only the line is another one, so that a call costs one process
less on its way and back. `burla/private_cluster.py` starts it, and nobody else: it has no options.
Its process ends when either of the two does, or its owner.
"""

import asyncio
import os
from collections.abc import Sequence
from math import inf
from pathlib import Path

from burla.nodelet.config import STATE_FILE, NodeletConfig, host_name, usable_cpus, usable_ram
from burla.nodelet.shell import agent
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.shell import server
from burla.system import daemon
from burla.system.hash_seed import own_seed
from burla.system.owner import Owner
from burla.transport.direct import direct_line


def main(arguments: Sequence[str]) -> int:
    """Be the private cluster: `ADDRESS OWNER`; return the exit code."""
    address, owner = arguments[0], Owner.parse(arguments[1])
    assert owner.directory is not None, arguments
    daemon.prepare("burla-cluster", daemon.PRIVATE_LEVEL)
    os.umask(0o077)  # a socket file is for this user only: no keys guard it
    # its owner may be stopped for as long as it lives: there is nobody else to wait
    scheduler = SchedulerConfig(address, is_private=True, away_limit_s=inf)
    nodelet = NodeletConfig(
        address,
        usable_cpus(),
        usable_ram(),
        host_name(),
        scratch=owner.directory,
        state_file=Path(owner.directory, STATE_FILE),
        hash_seed=own_seed(),  # our environment is that of the caller
    )
    return daemon.run(lambda: _run(scheduler, nodelet), owner)


async def _run(scheduler: SchedulerConfig, nodelet: NodeletConfig) -> None:
    """Run both until cancelled, or until one of them ends.

    Raises:
        Exception: what one of them failed of, as it would in a process of its own.
    """
    of_scheduler, of_nodelet = direct_line()
    parts = [
        server.run(scheduler, lambda address: None, direct=of_scheduler),
        agent.run(nodelet, of_nodelet),
        of_scheduler.wait_failed(),
        of_nodelet.wait_failed(),
    ]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in ended:
        await task
