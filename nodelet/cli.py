"""`burla-nodelet`: the command line of the nodelet.

argparse and not click: a private cluster pays for every import of its daemons at its start.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Sequence

from burla.wire import daemon
from burla.wire.owner import Owner

from . import isolation
from .agent import NotAcceptedError, run
from .config import GB, NodeletConfig, host_name, usable_cpus, usable_ram
from .kernel import set_dumpable

EXIT_FAILED = 1
LISTEN_S = 10.0  # how long a nodelet that was started together with its scheduler waits for it

log = logging.getLogger(__name__)

DESCRIPTION = """\
Give this machine to a burla cluster: connect to its scheduler and run calls in worker processes.

The scheduler may start later, go away and come back; the nodelet connects again by itself. It runs
until SIGTERM or Ctrl-C, and then leaves nothing behind: no process, no file. Calls inherit its
environment."""

EPILOG = """\
--isolation best takes what this machine allows, best first, and says which it is:
  uid         (as root) each lease has a user id, processes, IPC, /tmp, /dev/shm and limits of its
              own; all else is read-only, and its files, in memory, are at most half of --ram
  namespaces  the same under this user's id, with its home directory hidden
  landlock    a scratch directory; all else is read-only, this user's home can not be read
  process     functions have the rights of this user: for people who trust each other

examples:
  burla-nodelet --scheduler tcp://127.0.0.1:7270
  burla-nodelet --scheduler ipc:///run/burla.s --cpus 32 --ram 64 --name big-one

exit codes: 0 ended by SIGTERM, 2 wrong usage, 130 Ctrl-C, 1 anything else (it is on stderr)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a nodelet as the command line says; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    level = logging.INFO if options.owner is None else logging.WARNING
    daemon.prepare("burla-nodelet", level)
    try:
        config = _config(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        return daemon.run(lambda: _run(config, options), options.owner)
    except NotAcceptedError as error:
        log.error("refused by the scheduler at %s: %s", config.scheduler, error)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="burla-nodelet",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        required=True,
        help="the address that burla-scheduler printed: tcp://HOST:PORT or ipc://PATH",
    )
    parser.add_argument(
        "--cpus",
        metavar="N",
        type=int,
        help="count this machine as N CPUs, one worker process each (default: those that this "
        "process may use, by affinity and cgroup)",
    )
    parser.add_argument(
        "--ram",
        metavar="GB",
        type=float,
        help="count this machine's memory as so many GB of 2**30 bytes (default: what it has, or "
        "what the cgroup allows)",
    )
    parser.add_argument(
        "--name", help="what this node is called in messages (default: the host's name)"
    )
    parser.add_argument(
        "--isolation",
        choices=(isolation.BEST, isolation.Tier.PROCESS.value),
        default=isolation.BEST,
        help="how far each lease is shut in; see below (default: best)",
    )
    parser.add_argument("--owner", type=Owner.parse, help=argparse.SUPPRESS)
    return parser


def _config(options: argparse.Namespace) -> NodeletConfig:
    """Return the settings.

    Raises:
        ValueError: an option is out of range.
    """
    cpus = usable_cpus() if options.cpus is None else options.cpus
    ram = usable_ram() if options.ram is None else _bytes(options.ram)
    name = host_name() if options.name is None else options.name
    if options.owner is not None and options.owner.directory is not None:
        return NodeletConfig(options.scheduler, cpus, ram, name, scratch=options.owner.directory)
    return NodeletConfig(options.scheduler, cpus, ram, name)


def _isolated(config: NodeletConfig, wanted: str) -> NodeletConfig:
    """Return the settings with the best tier of isolation that works; tell which it is."""
    with contextlib.suppress(OSError):  # not Linux
        set_dumpable(False)  # what this process knows, functions must not read
    confinement = isolation.confinement(config.ram, config.cpus, config.scheduler)
    tier, why = isolation.choose(wanted, confinement)
    if tier is isolation.Tier.PROCESS:
        log.warning(
            "isolation: process (%s): functions have all rights of this user; let only people "
            "use this node who trust each other",
            why,
        )
    else:
        log.info("isolation: %s%s", tier, f" ({why})" if why else "")
    confinement = dataclasses.replace(
        confinement,
        has_root=tier is isolation.Tier.UID,
        use_landlock=tier is isolation.Tier.LANDLOCK,
    )
    return dataclasses.replace(config, tier=tier, confinement=confinement)


def _bytes(ram_gb: float) -> int:
    if not 0 < ram_gb < 1 << 20:  # also false for nan
        raise ValueError(f"argument --ram: {ram_gb} GB of memory is no machine")
    return int(ram_gb * GB)


async def _run(config: NodeletConfig, options: argparse.Namespace) -> None:
    if options.owner is not None:  # it works for one user, as that user, in that user's files
        await daemon.wait_listening(config.scheduler, LISTEN_S)
    else:
        config = await asyncio.to_thread(_isolated, config, options.isolation)
    await run(config)
