"""What the exit status of each of our programs means, said once."""

from collections.abc import Mapping

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2  # as click and argparse have it
EXIT_UNREACHABLE = 69  # sysexits.h EX_UNAVAILABLE
EXIT_BUSY = 75  # sysexits.h EX_TEMPFAIL
EXIT_NOT_AUTHORISED = 77  # sysexits.h EX_NOPERM
EXIT_CONFIG = 78  # sysexits.h EX_CONFIG
EXIT_INTERRUPTED = 130  # as a shell says of a process that Ctrl-C ended

# By program: what it ends with, and when; its --help says it in these words.
COMMANDS = {
    EXIT_OK: "all is well",
    EXIT_FAILED: "something failed: a job, a node, a check",
    EXIT_USAGE: "wrong usage",
    EXIT_UNREACHABLE: "no cluster answers, or there is none of that name",
    EXIT_NOT_AUTHORISED: "your key may not do that",
    EXIT_CONFIG: "a setting or a file is impossible",
    EXIT_INTERRUPTED: "Ctrl-C",
}
SCHEDULER = {
    EXIT_OK: "ended by SIGTERM",
    EXIT_FAILED: "any other error (see stderr)",
    EXIT_USAGE: "wrong usage",
    EXIT_BUSY: "the address is in use",
    EXIT_CONFIG: "the address or a key is refused",
    EXIT_INTERRUPTED: "Ctrl-C",
}
NODELET = {
    EXIT_OK: "SIGTERM or drained",
    EXIT_FAILED: "any other error (see stderr)",
    EXIT_USAGE: "wrong usage",
    EXIT_UNREACHABLE: "the scheduler does not answer",
    EXIT_NOT_AUTHORISED: "not authorised",
    EXIT_CONFIG: "a key or token file is refused",
    EXIT_INTERRUPTED: "Ctrl-C",
}


def described(codes: Mapping[int, str]) -> str:
    """Return exit codes as lines for a help text."""
    return "\n".join(["exit codes:", *(f"  {code:3}  {what}" for code, what in codes.items())])
