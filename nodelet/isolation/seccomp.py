"""A filter of system calls for what Landlock has no right for.

Landlock judges who opens a file, not who changes its mode, owner, times or attributes by its name;
and it leaves out System V IPC, message queues, keyrings and limits of other processes. The filter
answers all these with EPERM. By a descriptor modes and times can still be changed: whoever has one
was let in by Landlock. `by_descriptor` does so for Python.
"""

import ctypes
import errno
import os
import struct

from . import linux

_DENIED = {
    "x86_64": {
        **{"chmod": 90, "fchmodat": 268, "chown": 92, "lchown": 94, "fchownat": 260},
        **{"utime": 132, "utimes": 235, "futimesat": 261},
        **{"setxattr": 188, "lsetxattr": 189, "removexattr": 197, "lremovexattr": 198},
        **{"shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240},
        **{"add_key": 248, "request_key": 249, "keyctl": 250},
    },
    "aarch64": {
        **{"fchmodat": 53, "fchownat": 54},
        **{"setxattr": 5, "lsetxattr": 6, "removexattr": 14, "lremovexattr": 15},
        **{"shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180},
        **{"add_key": 217, "request_key": 218, "keyctl": 219},
    },
}
# The same number everywhere. io_uring does such things without a system call of its own.
_DENIED_NEWER = {"io_uring_setup": 425, "fchmodat2": 452}
_DENIED_NEWER |= {"setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
_UTIMENSAT = {"x86_64": 280, "aarch64": 88}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32 = 0x40000000  # set in the numbers of another kind of program for the same processor

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2


def is_there() -> bool:
    """Return whether this machine can filter, and we know its numbers."""
    if os.uname().machine not in _DENIED:
        return False
    try:
        linux.prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def restrict() -> None:
    """Filter the system calls of this process and all its children, for ever. Needs no_new_privs.

    Raises:
        OSError: the kernel cannot.
    """
    program = filter_of(os.uname().machine)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    linux.prctl(_PR_SET_SECCOMP, _MODE_FILTER, header)


def filter_of(machine: str) -> bytes:
    """Return the program of the filter for a kind of processor."""
    denied = _RETURN, 0, 0, _ERRNO | errno.EPERM
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        denied,
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [(_IF_AT_LEAST, 0, 1, _X32), denied]
    for number in sorted({**_DENIED[machine], **_DENIED_NEWER}.values()):
        lines += [(_IF_EQUAL, 0, 1, number), denied]
    # utimensat without a name is futimens
    lines += _if(_UTIMENSAT[machine], [*_if_zero(1), denied])
    # limits of others can be read, not set
    lines += _if(_PRLIMIT[machine], [*_if_zero(2), *_if_zero(0, halves=1), denied])
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


_Line = tuple[int, int, int, int]


def _if(number: int, lines: list[_Line]) -> list[_Line]:
    """Return lines that a call of this number runs, and which return."""
    return [(_IF_EQUAL, 0, len(lines), number), *lines]


def _if_zero(argument: int, halves: int = 2) -> list[_Line]:
    """Return lines that allow a call whose argument, of so many 32-bit halves, is zero."""
    allowed = _RETURN, 0, 0, _ALLOW
    low = 16 + 8 * argument
    if halves == 1:
        return [(_LOAD, 0, 0, low), (_IF_EQUAL, 0, 1, 0), allowed]
    return [
        (_LOAD, 0, 0, low),
        (_IF_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, low + 4),
        (_IF_EQUAL, 0, 1, 0),
        allowed,
    ]
