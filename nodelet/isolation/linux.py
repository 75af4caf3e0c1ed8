"""What Linux offers to shut a process in, and Python has no name for: namespaces, mounts, prctl.

Numbers are those of the kernel's headers, named after them. All raise OSError with the kernel's
reason; where a machine lacks a thing (another system, an old kernel), that is ENOSYS.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _AT_RECURSIVE, _AT_FDCWD = 1, 2, 0x8000, -100
_MNT_DETACH = 2
# linux/prctl.h
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITIES_MAX = 64  # bits of a set; those that the kernel does not know are refused
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words a set
_KEYCTL_JOIN_SESSION_KEYRING, _KEYCTL_CLEAR = 1, 7  # linux/keyctl.h
_KEYRING_OF_SESSION, _KEYRING_OF_USER, _KEYRING_OF_USER_SESSION = -3, -4, -5
# linux/landlock.h
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1

# These numbers are the same on all machines since mount_setattr's time; older ones are looked up.
_SYSCALL_MOUNT_SETATTR = 442
_SYSCALL_LANDLOCK = 444  # create_ruleset, add_rule, restrict_self
_MACHINE = os.uname().machine
_SYSCALL_CAPSET = {"x86_64": 126, "aarch64": 91}.get(_MACHINE)
_SYSCALL_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(_MACHINE)

_OPTIONS = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
_RELATIME, _NOATIME, _NODIRATIME = 1 << 21, 1 << 10, 1 << 11
_OPTIONS |= {"relatime": _RELATIME, "noatime": _NOATIME, "nodiratime": _NODIRATIME}


def _call(name: str, *arguments: object) -> int:
    try:
        function = getattr(_libc, name)
    except AttributeError:
        raise OSError(errno.ENOSYS, f"this system has no {name}") from None
    return _checked(name, function(*arguments))


def _syscall(name: str, number: int | None, *arguments: object) -> int:
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of {name} is not known here")
    return _checked(name, _libc.syscall(ctypes.c_long(number), *arguments))


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(name: str, number: int, command: int, words: bytes) -> int:
    """Do what takes a command and a structure."""
    return _syscall(name, number, ctypes.c_int(command), words, ctypes.c_size_t(len(words)))


def _long(number: int) -> ctypes.c_ulong:
    return ctypes.c_ulong(number)


# --- namespaces and mounts ---


def unshare(flags: int) -> None:
    """Put this process, or (for CLONE_NEWPID) its next children, into new namespaces."""
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source`, or a new file system of this kind, at `target`."""
    encoded = [os.fsencode(word) for word in (source, target, kind)]
    _call("mount", *encoded, _long(flags), os.fsencode(data))


def detach(target: str) -> None:
    """Take a mount away as soon as nobody uses it any more."""
    _call("umount2", os.fsencode(target), ctypes.c_int(_MNT_DETACH))


def make_read_only() -> None:
    """Make all that is mounted now read-only for this mount namespace."""
    try:
        attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
        _syscall(
            "mount_setattr",
            _SYSCALL_MOUNT_SETATTR,
            ctypes.c_int(_AT_FDCWD),
            b"/",
            ctypes.c_uint(_AT_RECURSIVE),
            attributes,
            ctypes.c_size_t(len(attributes)),
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        with open("/proc/self/mountinfo") as file:
            lines = file.readlines()
        for target, flags in mounts(lines):
            make_one_read_only(target, flags)


def make_one_writable(target: str) -> None:
    """Make one mount writable again; whatever else was forbidden stays so."""
    kept = {os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC, os.ST_NOATIME: _NOATIME}
    kept |= {os.ST_NODIRATIME: _NODIRATIME, os.ST_RELATIME: _RELATIME}
    found = os.statvfs(target).f_flag
    flags = sum(flag for seen, flag in kept.items() if found & seen)
    mount("", target, "", flags | MS_REMOUNT | MS_BIND | MS_NOSUID)


def make_one_read_only(target: str, flags: int) -> None:
    """Make one mount, which has `flags`, read-only; before Linux 5.12 it is done one by one."""
    mount("", target, "", flags | MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def mounts(mountinfo: Iterable[str]) -> Iterable[tuple[str, int]]:
    """Yield each mount point in the lines of /proc/self/mountinfo with its flags, which are kept.

    Those that another one covers cannot be named; they cannot be written to either.
    """
    for line in mountinfo:
        words = line.split()
        flags = 0
        for option in words[5].split(","):
            flags |= _OPTIONS.get(option, 0)
        # spaces, tabs, newlines and backslashes are written in octal
        yield words[4].encode().decode("unicode_escape").encode("latin-1").decode(), flags


# --- what a process may do ---


def prctl(option: int, number: int = 0, words: bytes | None = None) -> int:
    """Do what has no function of its own here; `words`: a structure."""
    third = ctypes.c_char_p(words)
    return _call("prctl", ctypes.c_int(option), _long(number), third, _long(0), _long(0))


def set_dumpable(wanted: bool) -> None:
    """Say whether processes of the same user may trace this one, or read its /proc/PID/mem."""
    _call("prctl", ctypes.c_int(_PR_SET_DUMPABLE), _long(int(wanted)), _long(0), _long(0), _long(0))


def set_no_new_privileges() -> None:
    """Have no program that is executed from now on gain anything, be it setuid."""
    _call("prctl", ctypes.c_int(_PR_SET_NO_NEW_PRIVS), _long(1), _long(0), _long(0), _long(0))


def drop_bounding_set() -> None:
    """Give up the right to gain any capability. Needs CAP_SETPCAP."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            _call("prctl", ctypes.c_int(_PR_CAPBSET_DROP), _long(capability), *[_long(0)] * 3)
        except OSError as error:
            if error.errno != errno.EINVAL:  # this kernel has no such capability
                raise


def drop_capabilities() -> None:
    """Give up all capabilities."""
    _call("prctl", ctypes.c_int(_PR_CAP_AMBIENT), _long(_PR_CAP_AMBIENT_CLEAR_ALL), *[_long(0)] * 3)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _syscall("capset", _SYSCALL_CAPSET, header, bytes(24))


def leave_keyring() -> None:
    """Have a session keyring of our own, not that of whoever started us."""
    _syscall("keyctl", _SYSCALL_KEYCTL, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None)


def clear_keyring_of_session() -> None:
    """Remove all keys that this process shares with those that it has forked."""
    _clear_keyring(_KEYRING_OF_SESSION)


def clear_keyrings_of_user() -> None:
    """Remove all keys that this user shares with its other processes."""
    _clear_keyring(_KEYRING_OF_USER)
    _clear_keyring(_KEYRING_OF_USER_SESSION)


def _clear_keyring(keyring: int) -> None:
    _syscall("keyctl", _SYSCALL_KEYCTL, ctypes.c_int(_KEYCTL_CLEAR), ctypes.c_int(keyring))


# --- Landlock ---


def landlock_version() -> int:
    """Return the version of Landlock's rules that the kernel knows."""
    return _syscall(
        "landlock_create_ruleset",
        _SYSCALL_LANDLOCK,
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION),
    )


def landlock_ruleset(filesystem: int, network: int, scoped: int) -> int:
    """Return the descriptor of a new ruleset that handles these rights; the rest stays allowed."""
    attributes = struct.pack("QQQ", filesystem, network, scoped)
    if not scoped:  # the kernel may not know the field
        attributes = attributes[:16] if network else attributes[:8]
    return _syscall(
        "landlock_create_ruleset",
        _SYSCALL_LANDLOCK,
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )


def landlock_allow(ruleset: int, directory: int, rights: int) -> None:
    """Allow `rights` on a file or below a directory, both given by descriptor."""
    _syscall(
        "landlock_add_rule",
        _SYSCALL_LANDLOCK + 1,
        ctypes.c_int(ruleset),
        ctypes.c_int(_LANDLOCK_RULE_PATH_BENEATH),
        struct.pack("=Qi", rights, directory),
        ctypes.c_uint(0),
    )


def landlock_restrict(ruleset: int) -> None:
    """Restrict this thread and all its children for ever. Needs no_new_privs."""
    _syscall(
        "landlock_restrict_self", _SYSCALL_LANDLOCK + 2, ctypes.c_int(ruleset), ctypes.c_uint(0)
    )
