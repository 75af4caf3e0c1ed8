import os
import subprocess
import sys

import pytest

from burla.system.procfs import HAS_PROC, Membership, memberships, parent_of, process_started

needs_proc = pytest.mark.skipif(not HAS_PROC, reason="no /proc here")


@needs_proc
def test_a_process_has_a_start_and_a_parent_until_it_has_ended() -> None:
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        started, ours = process_started(child.pid), process_started(os.getpid())
        assert started is not None
        assert ours is not None
        assert ours <= started
        assert parent_of(child.pid) == os.getpid()
    assert process_started(child.pid) is None
    assert parent_of(child.pid) == 0


@needs_proc
def test_one_that_is_not_reaped_has_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process_started(pid) is None
    assert parent_of(pid) == os.getpid()
    os.waitpid(pid, 0)


def test_control_groups_of_both_versions() -> None:
    text = "5:cpu,cpuacct:/docker/x\n1:name=systemd:/\n0::/user.slice\n"
    assert list(memberships(text)) == [
        Membership(5, ("cpu", "cpuacct"), "/docker/x"),
        Membership(1, ("name=systemd",), "/"),
        Membership(0, (), "/user.slice"),
    ]
