"""`burla-nodelet`: the command line of the nodelet.

argparse and not click: a private cluster pays for every import of its daemons at its start.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from burla.nodelet.isolation import probe
from burla.nodelet.isolation.linux import set_dumpable
from burla.nodelet.isolation.tier import BEST, Tier
from burla.nodelet.shell.launching import Launched
from burla.nodelet.shell.refusals import NotAcceptedError, NotAuthorisedError
from burla.nodelet.shell.trial import Trial
from burla.system import daemon
from burla.system.exit_codes import NODELET, described
from burla.system.failure import (
    BAD_KEY_FILE,
    NO_SCHEDULER,
    NOT_ACCEPTED,
    NOT_JOINED,
    Complaint,
    Parser,
    told,
)
from burla.system.hash_seed import own_seed
from burla.system.heap import keep_freed
from burla.system.owner import Owner
from burla.system.paths import settings_directory
from burla.system.preparing import prepare
from burla.transport.addresses import ipc_path, take_apart
from burla.transport.keys import (
    ClientCurve,
    KeyFileError,
    KeyPair,
    load_or_make_pair,
    make_pair,
    pair_of,
    parse_key,
)
from burla.transport.server_keys import ServerKeys

from . import packages_cli
from .config import (
    GB,
    GPUS_MAX,
    STATE_FILE,
    NodeletConfig,
    host_name,
    usable_cpus,
    usable_gpus,
    usable_ram,
)
from .enrollment import NoAnswerError, NotJoinedError, join

KEY_FILE = "node.key"
SERVERS = ".servers"  # beside it: which keys of the scheduler replaced which
IN_MEMORY = "none"
TOKEN_BYTES_MAX = 1024  # a token is one line
LISTEN_S = 10.0  # how long a nodelet that was started together with its scheduler waits for it

log = logging.getLogger(__name__)

DESCRIPTION = """\
Give this machine to a burla cluster: connect to its scheduler and run calls in worker processes.

The scheduler may start later, go away and come back; the nodelet connects again by itself. It runs
until SIGTERM or Ctrl-C, and then leaves nothing behind: no process, no file. SIGUSR1 drains it:
it takes no more work, finishes the calls that run, and ends. SIGUSR2 lets it write its state to
nodelet-state.json in your settings directory. Calls inherit its environment.

`burla-nodelet install` (see its --help) makes packages ready that it is to have for all jobs."""

EPILOG = f"""\
--isolation best takes what this machine allows, best first, and says which it is:
  uid         (as root) each lease has a user id, processes, IPC, /tmp, /dev/shm and limits of its
              own; all else is read-only, and its files, in memory, are at most half of --ram
  namespaces  the same under this user's id, with its home directory hidden
  landlock    a scratch directory; all else is read-only, and this user's home cannot be read
  process     functions have all rights of this user: only for users who trust each other

examples:
  burla-nodelet --scheduler 'burla://HOST:7270?key=...' --join-token-file token   # the first time
  burla-nodelet --scheduler 'burla://HOST:7270?key=...'                           # later
  burla-nodelet --scheduler ipc:///run/burla.s --packages requirements.txt
  burla-nodelet --scheduler ipc:///run/burla.s --cpus 32 --ram 64 --name big-one

{described(NODELET)}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a nodelet as the command line says; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    begin = packages_cli.install if words[:1] == ["install"] else _serve
    return told(
        lambda: begin(words), json="--json" in words, say=lambda text: log.error("%s", text)
    )


def _serve(words: list[str]) -> int:
    """Run a nodelet."""
    parser = _parser()
    parser.as_json = "--json" in words
    options = parser.parse_args(words)
    level = daemon.log_level(options, is_private=options.owner is not None)
    prepare("burla-nodelet", level)
    try:
        config = _with_key(_config(options), options)
    except ValueError as error:
        parser.error(str(error))
    except KeyFileError as error:
        raise Complaint(BAD_KEY_FILE, str(error)) from None
    except NotJoinedError as error:
        raise Complaint(NOT_JOINED, f"cannot join the cluster: {error}") from None
    except NoAnswerError as error:
        raise Complaint(NO_SCHEDULER, f"cannot join the cluster: {error}") from None
    try:
        return daemon.run(lambda: _run(config, options), options.owner)
    except NotAcceptedError as error:
        failure = NOT_JOINED if isinstance(error, NotAuthorisedError) else NOT_ACCEPTED
        text = f"refused by the scheduler at {config.endpoint()}: {error}"
        if failure is NOT_JOINED:  # what users do is said in the error
            text += ". A node gets in by a token: `burla auth token`, and --join-token-file"
        raise Complaint(failure, text) from None


def _parser() -> Parser:
    parser = Parser(
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
        help="the address that burla-scheduler printed: burla://HOST:PORT?key=KEY or ipc://PATH",
    )
    parser.add_argument(
        "--join-token-file",
        metavar="FILE",
        help="a file with what `burla auth token` printed, - for stdin: makes the key of this node "
        "known to the scheduler; needed once",
    )
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="this node's secret key, made if there is none; none: it is kept in memory only, and "
        "each start needs a token (default: node.key in BURLA_CONFIG_DIR, or your settings)",
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
        help="count this machine's memory as so many GB of 2**30 bytes, which all workers together "
        "may use (default: what it has, or what the cgroup allows)",
    )
    parser.add_argument(
        "--gpus",
        metavar="N",
        type=int,
        help="count this machine as having N GPUs (default: those that its NVIDIA driver tells and "
        "CUDA_VISIBLE_DEVICES allows)",
    )
    parser.add_argument(
        "--name", help="what this node is called in messages (default: the host's name)"
    )
    parser.add_argument(
        "--ready-file",
        metavar="PATH",
        type=Path,
        help="a file that exists, and is at most a minute old, while the scheduler answers",
    )
    parser.add_argument(
        "--reconnect-timeout",
        metavar="S",
        type=float,
        default=NodeletConfig.reconnect_timeout_s,
        help="how long leases go on while the scheduler is silent, in seconds (default: "
        "%(default)g)",
    )
    parser.add_argument(
        "--isolation",
        choices=(BEST, Tier.PROCESS.value),
        default=BEST,
        help="how each lease is isolated; see below (default: best)",
    )
    packages_cli.add_options(parser)
    daemon.add_log_level(parser)
    parser.add_argument(
        "--json", action="store_true", help="print as JSON on stdout why it ends, if it fails"
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
    ready = options.ready_file
    if options.gpus is not None and not 0 <= options.gpus <= GPUS_MAX:
        raise ValueError(f"gpus={options.gpus}: from 0 to {GPUS_MAX}")
    config = NodeletConfig(options.scheduler, cpus, ram, name, ready)
    config = replace(config, gpus=usable_gpus(options.gpus))
    config = replace(config, reconnect_timeout_s=options.reconnect_timeout)
    config = packages_cli.with_options(config, options)
    directory = settings_directory()
    if options.owner is not None and options.owner.directory is not None:
        directory = options.owner.directory
        config = replace(config, scratch=directory)
    if options.owner is not None:
        config = replace(config, hash_seed=own_seed())  # our environment is that of the caller
    if directory is not None:
        config = replace(config, state_file=Path(directory, STATE_FILE))
    return config


def _with_key(config: NodeletConfig, options: argparse.Namespace) -> NodeletConfig:
    """Return the settings with this node's key, which the scheduler then knows, if it needs one.

    Raises:
        KeyFileError: a key or token is refused.
        NotJoinedError: the scheduler does not take the token.
        NoAnswerError: the scheduler does not answer.
    """
    where = take_apart(config.scheduler)
    if where.key is None:
        return config
    pair, is_new = _own_pair(options.key_file)
    config = replace(config, **_kept(options.key_file))
    if options.join_token_file is not None:
        token = _token(options.join_token_file)
        try:
            server = ClientCurve(token, where.key, config.server_keys)
            first = join(where.endpoint, server, pair.public, config.name)
            if first:  # seeds of hash() go by that
                config.server_keys.learn(first, where.key, 0.0)
        except NotJoinedError as error:
            if is_new:
                raise
            log.warning("%s; trying with the key that this node has already", error)
    elif is_new:
        text = (
            "this node has no key yet: pass --join-token-file (`burla auth token` prints a token)"
        )
        raise NotJoinedError(text)
    return replace(config, pair=pair)


def _kept(named: str | None) -> dict[str, Any]:
    """Return where the keys of this node are kept, and those of its scheduler."""
    if named == IN_MEMORY:
        return {"key_file": None, "server_keys": ServerKeys()}
    path = named if named is not None else os.path.join(settings_directory() or "", KEY_FILE)
    servers = f"{path.removesuffix('.key')}{SERVERS}"
    return {"key_file": os.path.abspath(path), "server_keys": ServerKeys(os.path.abspath(servers))}


def _own_pair(named: str | None) -> tuple[KeyPair, bool]:
    """Return this node's keys, and whether they were made just now."""
    if named == IN_MEMORY:
        return make_pair(), True
    if named is None:
        settings = settings_directory()
        if settings is None:
            raise KeyFileError("cannot find your settings directory (no HOME): pass --key-file")
        named = os.path.join(settings, KEY_FILE)
    is_new = not os.path.lexists(named)
    try:
        return load_or_make_pair(named, "a burla node"), is_new
    except OSError as error:
        raise KeyFileError(f"cannot make {named}: {error.strerror}") from None


def _token(path: str) -> KeyPair:
    """Return the keys that a join token stands for."""
    try:
        if path == "-":
            text = sys.stdin.readline(TOKEN_BYTES_MAX)  # whoever gives it need not close the pipe
        else:
            with open(path) as file:
                text = file.readline(TOKEN_BYTES_MAX)
        return pair_of(parse_key(text))
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot read a join token from {path}: {error}") from None


@contextlib.asynccontextmanager
async def _isolated(
    config: NodeletConfig, wanted: str, key_file: str | None
) -> AsyncIterator[tuple[NodeletConfig, tuple[str, Launched | None] | None]]:
    """Yield the settings with the best tier of isolation that works, and what is begun for it."""
    with contextlib.suppress(OSError):  # not Linux
        set_dumpable(False)  # what this process knows, functions must not read
    config = replace(config, packages=packages_cli.directory_of_packages(config.packages))
    offer = (config.ram, config.cpus, config.scheduler)
    confinement = probe.confinement(*offer, key_file, config.packages)
    if wanted != BEST:
        tier = Tier.PROCESS
        _tell(tier, "asked for by --isolation")
        yield replace(config, confinement=probe.fitted(confinement, tier)), None
        return
    trial = Trial(config.scratch, config.hash_seed_of_workers(), confinement)
    try:
        _load_agent()
        tier, why = await trial.outcome()
        _tell(tier, why)
        confinement = probe.fitted(confinement, tier)
        launched = await trial.go_on(tier, confinement)
        yield replace(config, tier=tier, confinement=confinement), (trial.scratch, launched)
    finally:
        await trial.close()


def _load_agent() -> Callable[..., Coroutine[Any, Any, None]]:
    """Return `agent.run`: what that needs is imported once something else has begun to start."""
    gc.disable()  # as at the start: see __main__.py
    from burla.nodelet.shell.agent import run

    gc.freeze()
    gc.enable()
    return run


def _tell(tier: Tier, why: str) -> None:
    """Tell how far leases are shut in."""
    if tier is Tier.PROCESS:
        log.warning(
            "isolation: process (%s): functions have all rights of this user; only users who trust "
            "each other should share this node",
            why,
        )
    else:
        log.info("isolation: %s%s", tier, f" ({why})" if why else "")


def _with_runtime(config: NodeletConfig) -> NodeletConfig:
    """Return the settings with what fetches images, if jobs can run in any; else tell why."""
    from burla.nodelet.shell.runtimes import find_runtime

    if not config.tier.is_sandboxed():
        return config
    runtime, why = (
        find_runtime() if config.packages else ("", "there is no directory for its files")
    )
    if not runtime:
        log.info("no job runs in a container image here: %s", why)
    return replace(config, runtime=runtime)


def _bytes(ram_gb: float) -> int:
    if not 0 < ram_gb < 1 << 20:  # also false for nan
        raise ValueError(f"argument --ram: {ram_gb} GB is out of range: more than 0, below 1048576")
    return int(ram_gb * GB)


async def _run(config: NodeletConfig, options: argparse.Namespace) -> None:
    if options.owner is not None:  # it works for one user, as that user, in that user's files
        await daemon.wait_listening(ipc_path(config.scheduler), LISTEN_S)
        await _serve_with(config, options, None)
        return
    async with _isolated(config, options.isolation, options.key_file) as (config, begun):
        config = await asyncio.to_thread(_with_runtime, config)
        await _serve_with(config, options, begun)


async def _serve_with(
    config: NodeletConfig,
    options: argparse.Namespace,
    begun: tuple[str, Launched | None] | None,
) -> None:
    """Serve; `begun`: see `agent.run`."""
    run = _load_agent()
    if config.curve() is not None:  # big values come and go in messages
        keep_freed()
    try:
        async with packages_cli.given(config) as config:
            await run(config, begun=begun)
    finally:
        if config.packages and not options.packages_directory:
            packages_cli.remove_if_empty(config.packages)
