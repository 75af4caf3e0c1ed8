"""Errors for programs: how a command says with --json what went wrong, and what each kind means.

Kinds are promised: one may be added, none is renamed. Those of exceptions are in
burla/commands/failures.py.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import NoReturn

from msgspec import Struct

from .exit_codes import (
    EXIT_BUSY,
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_AUTHORISED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
)

SCHEMA = 1  # version of what is printed as JSON in an envelope; see burla/commands/report_types.py


class Failure(Struct, frozen=True):
    """What an error means to a program."""

    kind: str
    code: int  # exit status
    remedy: str  # for people: what to do


USAGE = Failure("usage", EXIT_USAGE, "see the command with --help")
INTERRUPTED = Failure("interrupted", EXIT_INTERRUPTED, "run the same command again")
INTERNAL = Failure(
    "internal", EXIT_FAILED, "this is a bug of burla: report the traceback on stderr"
)
# An OSError that names a file, or what this machine has no more of.
SYSTEM = Failure(
    "system", EXIT_FAILED, "let this machine have what the text names: rights, room, a file"
)
# Of daemons.
BAD_CONFIG = Failure("bad_config", EXIT_CONFIG, "correct the setting that the text names")
BAD_KEY_FILE = Failure("bad_key_file", EXIT_CONFIG, "do what the text says of the file")
ADDRESS_IN_USE = Failure(
    "address_in_use", EXIT_BUSY, "end what listens there, or pass another address by --bind"
)
SHORTAGE = Failure("shortage", EXIT_FAILED, "let this machine have more of what the text names")
NOT_JOINED = Failure(
    "not_authorised", EXIT_NOT_AUTHORISED, "make a join token (`burla auth token`) and pass it"
)
NO_SCHEDULER = Failure(
    "cluster_unreachable", EXIT_UNREACHABLE, "see that the scheduler runs, and the port is open"
)
NOT_ACCEPTED = Failure("refused", EXIT_FAILED, "do what the text says")
FAILED = Failure("failed", EXIT_FAILED, "do what the text says")


class Complaint(Exception):
    """A daemon cannot go on; says why."""

    def __init__(self, failure: Failure, text: str) -> None:
        """Keep what it means to a program."""
        super().__init__(text)
        self.failure = failure


class Parser(argparse.ArgumentParser):
    """The command line of a daemon, whose --json holds for wrong usage as well."""

    as_json = False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        if self.as_json:
            print(as_json(USAGE, message), flush=True)
            sys.exit(USAGE.code)
        super().error(message)


def add_json(parser: Parser, what: str) -> None:
    """Let a daemon be told to speak to a program on stdout."""
    parser.add_argument(
        "--json", action="store_true", help=f"print {what} as JSON, also why it ends if it fails"
    )


def told(run: Callable[[], int], *, json: bool, say: Callable[[str], None]) -> int:
    """Return the exit code of a daemon; it is told what was wrong.

    Args:
        run: the daemon.
        json: print errors as JSON on stdout.
        say: tells people.
    """
    try:
        return run()
    except Complaint as complaint:
        say(str(complaint))
        if json:
            print(as_json(complaint.failure, str(complaint)), flush=True)
        return complaint.failure.code
    except Exception as error:
        if json:
            print(as_json(INTERNAL, repr(error)), flush=True)
        raise


def as_json(failure: Failure, text: str) -> str:
    """Return an error as JSON."""
    said = {"kind": failure.kind, "text": text, "remedy": failure.remedy, "exit_code": failure.code}
    return json.dumps({"schema": SCHEMA, "kind": "error", "error": said})
