"""Both parts of a private cluster, in one loop."""

import asyncio
import logging
from math import inf
from pathlib import Path

from burla.nodelet.config import (
    STATE_FILE,
    NodeletConfig,
    host_name,
    usable_cpus,
    usable_gpus,
    usable_ram,
)
from burla.nodelet.shell import agent
from burla.nodelet.shell.launching import Launched
from burla.scheduler.config import SchedulerConfig
from burla.scheduler.shell import server
from burla.system import daemon
from burla.system.failure import told
from burla.system.owner import Owner
from burla.transport.direct import direct_line

log = logging.getLogger(__name__)


def run(address: str, owner: Owner, hash_seed: int, begun: tuple[str, Launched] | None) -> int:
    """Run both until told to end, or `owner` has ended; return the exit code.

    Args:
        address: where the scheduler listens to the owner.
        owner: whose cluster this is.
        hash_seed: of all workers.
        begun: the nodelet's scratch directory, and its zygote, unless that could not be.
    """
    assert owner.directory is not None, owner
    # its owner may be stopped for as long as it lives: there is nobody else to wait
    scheduler = SchedulerConfig(address, is_private=True, away_limit_s=inf)
    nodelet = NodeletConfig(
        address,
        usable_cpus(),
        usable_ram(),
        host_name(),
        scratch=owner.directory,
        state_file=Path(owner.directory, STATE_FILE),
        hash_seed=hash_seed,
        gpus=usable_gpus(),
        is_private=True,
    )
    return told(
        lambda: daemon.run(lambda: _run(scheduler, nodelet, begun), owner),
        json=False,
        say=lambda text: log.error("%s", text),
    )


async def _run(
    scheduler: SchedulerConfig, nodelet: NodeletConfig, begun: tuple[str, Launched] | None
) -> None:
    """Run both until cancelled, or until one of them ends.

    Raises:
        Exception: what one of them failed of, as it would in a process of its own.
    """
    of_scheduler, of_nodelet = direct_line()
    parts = [
        server.run(scheduler, lambda address: None, direct=of_scheduler),
        agent.run(nodelet, of_nodelet, begun),
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
