"""The filter of system calls: a program that the kernel takes, and what it lets through."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from burla.nodelet.isolation import by_descriptor, linux, seccomp


def filtered(act: Callable[[], object]) -> int:
    """Return the error number of what is done below the filter; 0: none."""
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            linux.set_no_new_privileges()
            seccomp.restrict()
            by_descriptor.install()
            act()
            number = 0
        except OSError as error:
            number = error.errno or 254
        finally:
            os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_program_ends_in_every_case(machine: str) -> None:
    """No jump leads beyond it: else the kernel would refuse all of it."""
    program = seccomp.filter_of(machine)
    lines = [program[at : at + 8] for at in range(0, len(program), 8)]
    for at, line in enumerate(lines):
        if line[:2] != b"\x06\0":  # it goes on
            assert at + 1 + max(line[2], line[3]) < len(lines) or line[:2] == b"\x20\0"
    assert lines[-1][:2] == b"\x06\0"


def test_limits_of_others_are_read_and_not_set() -> None:
    parent, cpu = os.getpid(), resource.RLIMIT_CPU
    limits = resource.getrlimit(cpu)
    assert filtered(lambda: resource.prlimit(parent, cpu)) == 0
    assert filtered(lambda: resource.prlimit(parent, cpu, limits)) == errno.EPERM
    assert filtered(lambda: resource.setrlimit(cpu, limits)) == 0


def test_what_can_be_opened_can_be_changed_and_nothing_else(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "b"
    file.write_text("a")
    link.symlink_to(file)
    assert filtered(lambda: file.chmod(0o200)) == 0  # what may only be written to
    assert filtered(lambda: os.utime(file, ns=(1, 10**9))) == 0
    assert file.stat().st_mode & 0o777 == 0o200
    assert file.stat().st_mtime_ns == 10**9
    assert filtered(lambda: os.chmod("a", 0o640, dir_fd=os.open(tmp_path, os.O_RDONLY))) == 0
    assert filtered(lambda: os.chmod(link, 0o600)) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert filtered(lambda: os.chown(file, os.getuid(), os.getgid())) == 0
    assert filtered(lambda: shutil.copy2(file, tmp_path / "c")) == 0
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600
    assert filtered(lambda: os.chmod(tmp_path / "none", 0o600)) == errno.ENOENT
    assert filtered(lambda: os.setxattr(file, "user.a", b"b")) == errno.EPERM
