"""`burla-scheduler`: the command line of the scheduler.

argparse and not click: a private cluster pays for every import of its daemons at its start.
"""

import argparse
import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import zmq

from burla.scheduler.auth.key_store import KeyStore
from burla.scheduler.core.client import AWAY_LIMIT_S
from burla.scheduler.core.quotas import Quotas
from burla.scheduler.core.store_limits import BYTES_MAX, KEEP_S, Limits
from burla.scheduler.shell.binding import named
from burla.scheduler.shell.server import run
from burla.system import daemon
from burla.system.exit_codes import EXIT_OK, SCHEDULER, described
from burla.system.failure import (
    ADDRESS_IN_USE,
    BAD_CONFIG,
    BAD_KEY_FILE,
    Complaint,
    Parser,
    add_json,
    told,
)
from burla.system.notify import Notifier
from burla.system.owner import Owner
from burla.system.preparing import prepare
from burla.transport.addresses import AddressError, bind_address, full_address, ipc_path
from burla.transport.descriptors import SPARE
from burla.transport.keys import KeyFileError

from .config import ConfigError, SchedulerConfig, keys_directory, metrics_address

BIND = "tcp://127.0.0.1:7270"
DIRECTORY_HELP = (
    "directory of the cluster's keys and audit log (default: scheduler/ in BURLA_CONFIG_DIR, or in "
    "your settings directory of burla)"
)
DAY_S = 86400.0
PROBE_S = 1.0  # who listens on a local socket takes a connection at once

DESCRIPTION = """\
Run the scheduler of a burla cluster: the one place that clients and nodelets connect to.

Once it listens, it prints its address as the first line on stdout; everything else goes to stderr.
It runs until SIGTERM or Ctrl-C. SIGUSR2 makes it write its state to scheduler-state.json, in the
directory of its keys or beside its socket file. What is kept of jobs (`burla jobs list`) lies there
in jobs.sqlite3."""

EPILOG = f"""\
examples:
  burla-scheduler init                        # once: make the cluster's keys
  burla-scheduler                             # for this machine
  burla-scheduler --bind tcp://0.0.0.0:7270   # for other machines, too; output uses the next port
  burla-scheduler --bind tcp://127.0.0.1:0    # on any free port, which is printed
  burla-scheduler --bind ipc:///run/burla.s   # on a socket file, for this user only; needs no keys

then, with the address that it printed:
  burla auth token > token                    # makes one machine a node, within ten minutes
  burla-nodelet --scheduler ADDRESS --join-token-file token
  burla login ADDRESS                         # as each user; prints the next command:
  burla auth add KEY --user NAME
  BURLA_CLUSTER=ADDRESS python script.py      # instead of what `burla login` stored

{described(SCHEDULER)}"""

INIT_DESCRIPTION = """\
Make the keys of a cluster, unless there are some, and print the address that users and nodes need.

The secret key stays in the directory, in a file that only this user can read. Anyone with a copy of
it can impersonate the scheduler."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a scheduler as the command line says; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    begin = _init if words[:1] == ["init"] else _serve
    return told(lambda: begin(words), json="--json" in words, say=_say)


def _serve(words: list[str]) -> int:
    """Run a scheduler."""
    parser = _parser()
    parser.as_json = "--json" in words
    options = parser.parse_args(words)
    level = daemon.log_level(options, is_private=options.owner is not None)
    prepare("burla-scheduler", level, SPARE)
    os.umask(0o077)  # a socket file is for this user only: no keys guard it
    try:
        keys, is_private = _keys(options), _is_private(options)
        config = SchedulerConfig(
            options.bind,
            keys,
            _quotas(options),
            is_private,
            options.away_limit,
            shared=options.shared,
            metrics=None if options.metrics is None else metrics_address(options.metrics),
            store=None if options.store is None else options.store.absolute(),
            stored=Limits(options.stored_days * DAY_S, options.stored_bytes),
        )
        _check_free(config.bind)
        notifier = Notifier()

        def announce(address: str) -> None:
            if options.ready_file is not None:
                _write_ready(options.ready_file, address)
            notifier.ready()
            _announce(json.dumps({"address": address}) if options.json else address)

        return daemon.run(lambda: run(config, announce, notifier.alive), options.owner)
    except AddressError as error:
        parser.error(f"argument --bind: {error}")
    except ConfigError as error:
        raise Complaint(BAD_CONFIG, str(error)) from None
    except KeyFileError as error:
        raise Complaint(BAD_KEY_FILE, str(error)) from None
    except (OSError, zmq.ZMQError) as error:  # a ZMQError is no OSError
        raise _explained(error, options.bind) from None


def _say(text: str) -> None:
    print(f"burla-scheduler: {text}", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="burla-scheduler",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default=BIND,
        help="where to listen: tcp://HOST:PORT (needs keys; port 0 picks a free one) or ipc://PATH "
        "(default: %(default)s)",
    )
    parser.add_argument("--dir", metavar="DIR", help=DIRECTORY_HELP)
    for name, what, when in (
        ("jobs", "open jobs", "at once"),
        ("inputs", "inputs under way", "at once"),
        ("bytes", "bytes", "at once"),
        ("opens", "jobs opened", "a second"),
    ):
        default = Quotas().opens_per_s if name == "opens" else getattr(Quotas(), f"{name}_max")
        parser.add_argument(
            f"--tenant-{name}",
            metavar="N",
            type=int,
            default=default,
            help=f"how many {what} each user may have {when}, unless `burla auth quota` says"
            " otherwise (default: %(default)s)",
        )
    parser.add_argument(
        "--ready-file",
        metavar="PATH",
        type=Path,
        help="a file that is written, with the address, once it listens",
    )
    parser.add_argument(
        "--away-limit",
        metavar="SECONDS",
        type=float,
        default=AWAY_LIMIT_S,
        help="how long the jobs of a caller that is away are kept, stopped or cut off from the "
        "network; then they are given up, and it is told so (default: %(default)g; inf: no limit)",
    )
    parser.add_argument(
        "--shared",
        metavar="DIR",
        default="",
        help="where all nodes have one file system, to which jobs may write: burla.shared there",
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="where to serve metrics for Prometheus, over HTTP without keys: 127.0.0.1:9464; needs "
        "burla[metrics] (default: nowhere)",
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        help="where the inputs and outcomes of detached jobs are kept (default: store/ in the"
        " directory of the keys, or beside the socket file)",
    )
    parser.add_argument(
        "--stored-days",
        metavar="N",
        type=float,
        default=KEEP_S / DAY_S,
        help="for how long a detached job is kept after it has ended (default: %(default)g)",
    )
    parser.add_argument(
        "--stored-bytes",
        metavar="N",
        type=int,
        default=BYTES_MAX,
        help="how many bytes the detached jobs of each user may have (default: %(default)s)",
    )
    daemon.add_log_level(parser)
    add_json(parser, "the address")
    parser.add_argument("--owner", type=Owner.parse, help=argparse.SUPPRESS)
    return parser


def _quotas(options: argparse.Namespace) -> Quotas:
    said = vars(options)
    return Quotas(*(said[f"tenant_{name}"] for name in ("jobs", "inputs", "bytes", "opens")))


def _keys(options: argparse.Namespace) -> Path | None:
    """Return the directory of the keys; a private cluster has none."""
    return None if _is_private(options) else keys_directory(options.dir)


def _is_private(options: argparse.Namespace) -> bool:
    return options.owner is not None and options.dir is None


def _init(words: list[str]) -> int:
    """Make the keys of a cluster; return the exit code."""
    parser = Parser(
        prog="burla-scheduler init",
        description=INIT_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dir", metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default=BIND,
        help="where the scheduler will listen, for the printed address: tcp://HOST:PORT "
        "(default: %(default)s)",
    )
    add_json(parser, "the address, the key and the directory")
    parser.as_json = "--json" in words
    options = parser.parse_args(words[1:])
    try:
        bind = bind_address(options.bind)
        if ipc_path(bind) is not None or bind.endswith(":0"):
            parser.error("argument --bind: must be a tcp address with a port; ipc:// needs no keys")
        directory = keys_directory(options.dir)
        pair = KeyStore(directory).make()
    except AddressError as error:
        parser.error(f"argument --bind: {error}")
    except ConfigError as error:
        raise Complaint(BAD_CONFIG, str(error)) from None
    except KeyFileError as error:
        raise Complaint(BAD_KEY_FILE, str(error)) from None
    except OSError as error:
        text = f"cannot make keys in {directory}: {error.strerror}"
        raise Complaint(BAD_CONFIG, text) from None
    address = full_address(named(bind), pair.public)
    if options.json:
        facts = {"address": address, "key": pair.public.hex(), "directory": str(directory)}
        address = json.dumps(facts)
    _announce(address)
    return EXIT_OK


def _announce(address: str) -> None:
    """Print the address, unless stdout is closed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(address, flush=True)


def _write_ready(path: Path, address: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(f"{address}\n")
    new.replace(path)


def _check_free(bind: str) -> None:
    """Raise what a bind should raise but libzmq does not: it takes a socket file from its user.

    Raises:
        OSError: EADDRINUSE: another process listens there.
        ConfigError: there is something that is not a socket; libzmq would delete it.
    """
    path = ipc_path(bind)
    if path is None or not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(f"refusing to listen on {bind}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # left behind by one that was killed
        except TimeoutError:
            pass  # another process listens, and is busy
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


BIND_REMEDY = "`ip address` lists those it has; tcp://0.0.0.0:PORT means all of them"


def _explained(error: OSError | zmq.ZMQError, bind: str) -> Exception:
    """Return in words what keeps it from listening; what is none of that, as it is."""
    if (file := getattr(error, "filename", None)) is not None:  # the audit log, or the like
        return Complaint(BAD_CONFIG, f"cannot use {file}: {error.strerror}")
    failure = BAD_CONFIG
    match error.errno:
        case errno.EADDRINUSE:
            failure = ADDRESS_IN_USE
            why = (
                "the address is in use, perhaps by another burla-scheduler: end that, or pass"
                " another one by --bind"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            why = "permission denied"
        case errno.ENOENT | errno.ENOTDIR:
            why = "no such directory"
        case errno.EADDRNOTAVAIL:
            why = f"this machine has no such address: {BIND_REMEDY}"
        case errno.ENODEV:  # so libzmq says it, of names too
            why = f"that is no address of this machine, as a number: {BIND_REMEDY}"
        case _:
            return error
    return Complaint(failure, f"cannot listen on {bind}: {why}")
