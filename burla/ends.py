"""What is known of the end of a process, in words. Says nothing that is not known.

A status tells which signal ended a process, and not who sent it: only what the node killed itself
it can tell. What is left is what each signal means, and whose it usually is.
"""

import errno
import os
import signal

OURS = "nodelet/worker/"  # in the file names of frames below the function's
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
_TIMERS = ("SIGALRM", "SIGVTALRM", "SIGPROF")


def how_it_died(status: int) -> str:
    """Return words for a process's end: its exit status, or minus the signal that killed it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def how_not_forked(number: int) -> str:
    """Return words for a process that could not be forked, by its errno."""
    name = errno.errorcode.get(number, str(number))
    return f"fork error {name} ({os.strerror(number)})"


def what_it_means(how: str) -> str:
    """Return what is known from how a worker ended alone, and what to do."""
    kind, _, name = how.partition(" ")
    if kind == "exit":
        return (
            "The function, or a library that it calls, ended its process (os._exit, exit in C) or"
            " put another program in its place (os.exec...): let it raise an exception instead"
        )
    if kind == "fork":
        return (
            "The node could not start a process: it has no memory, or its user too many processes"
            " (ulimit -u, the pids limit of a container or control group)"
        )
    if name in _TIMERS:
        return (
            f"A timer that the function or a library had set (signal.alarm, setitimer) ran out,"
            f" and nothing handled {name}: set a handler, or stop the timer"
        )
    if name == "SIGBUS":
        return (
            "Native code read or wrote memory that is not there, as when a mapped file was cut"
            " short or its file system (/dev/shm too) is full"
        )
    if name in _CRASHES:
        return "Native code crashed: call the function on this input by itself, under a debugger"
    return _MEANINGS.get(
        name,
        f"Nothing handled {name}. Who sent it is not known: the function, a library, or somebody"
        " on the node",
    )


_MEANINGS = {
    "SIGABRT": (
        "Native code gave up (abort, a failed assertion, an exception that nobody caught in C++)"
    ),
    "SIGKILL": (
        "The node did not send it, and its memory had not run out, as far as it could see. Who did"
        " is not known: the function, somebody on the node, or a limit on memory that the node"
        " cannot see"
    ),
    "SIGXCPU": "Its limit on CPU time (RLIMIT_CPU, ulimit -t) was used up",
    "SIGXFSZ": "It wrote a file beyond its limit (RLIMIT_FSIZE, ulimit -f)",
    "SIGPIPE": (
        "It wrote to a pipe or socket that nobody reads any more, with SIGPIPE set to its default:"
        " Python ignores that signal and raises BrokenPipeError"
    ),
}


def what_broke(why: str) -> str:
    """Return why the node killed a worker, if it was not for memory; see `protocol.deaths`."""
    if why == "closed":
        return (
            "The node ended it, because its connection to the node was closed: the function, or a"
            " library, closed descriptors that are not its own (os.close, os.closerange), or put"
            " another program in place of the process (os.exec...)"
        )
    return (
        "The node ended it, because what it said made no sense: the function, or a library, wrote"
        " into a descriptor or into memory that is not its own"
    )


def tidy_dump(text: str) -> str:
    """Return the dump of faulthandler as far as it is of the function's code."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("Extension modules:") or OURS in line:
            break
        lines.append(line)
    return "\n".join(lines).strip()
