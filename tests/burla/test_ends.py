"""What a process ended by, in words: what is known, and nothing else."""

import errno
import signal

import pytest

from burla.ends import how_it_died, how_not_forked, tidy_dump, what_broke, what_it_means
from burla.protocol.deaths import BROKEN, CLOSED


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "exit status 3"), (-11, "signal SIGSEGV"), (-9, "signal SIGKILL"), (-63, "signal 63")],
)
def test_how_a_process_died_in_words(status: int, words: str) -> None:
    assert how_it_died(status) == words


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit status 0", "ended its process"),
        ("signal SIGKILL", "node did not send it"),
        ("signal SIGTERM", "Who sent it is not known"),
        ("signal SIGUSR1", "Nothing handled SIGUSR1"),
        ("signal 63", "Nothing handled 63"),
        ("signal SIGALRM", "signal.alarm"),
        ("signal SIGPROF", "timer"),
        ("signal SIGABRT", "abort"),
        ("signal SIGBUS", "/dev/shm"),
        ("signal SIGSEGV", "Native code crashed"),
        ("signal SIGXCPU", "RLIMIT_CPU"),
        ("signal SIGXFSZ", "RLIMIT_FSIZE"),
        ("signal SIGPIPE", "BrokenPipeError"),
        (how_not_forked(errno.EAGAIN), "ulimit -u"),
    ],
)
def test_each_end_has_its_own_meaning(how: str, said: str) -> None:
    assert said in what_it_means(how)


def test_only_crashes_are_told_as_crashes_and_only_kills_as_memory() -> None:
    crashes = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS", "SIGABRT"}
    for number in signal.Signals:
        text = what_it_means(f"signal {number.name}")
        assert ("ative code" in text) == (number.name in crashes), number
        assert ("limit on memory" in text) == (number is signal.SIGKILL), number


def test_a_fork_that_failed_names_the_error() -> None:
    assert how_not_forked(errno.EAGAIN).startswith("fork error EAGAIN (")
    assert how_not_forked(9999).startswith("fork error 9999 (")


def test_what_the_node_killed_is_told_as_that() -> None:
    assert "os.closerange" in what_broke(CLOSED)
    assert "no sense" in what_broke(BROKEN)


def test_of_a_dump_the_frames_of_the_function_are_kept() -> None:
    dump = (
        "Fatal Python error: Segmentation fault\n\nStack (most recent call first):\n"
        '  File "/home/me/job.py", line 3 in crash\n'
        '  File "/x/burla/nodelet/worker/strides.py", line 168 in _call_all\n'
        '  File "/x/burla/nodelet/worker/worker.py", line 90 in serve\n'
        "\nExtension modules: numpy.core (total: 1)\n"
    )
    assert tidy_dump(dump).splitlines()[-1] == '  File "/home/me/job.py", line 3 in crash'
    assert tidy_dump("") == ""
