"""What a lease leaves in its sandbox, removed by the init, so that another lease may begin there.

That is of the same session, or there would be another sandbox. All processes have ended before but
for those that the lease cannot have used, if it has not meddled with them. Whatever has a path is
removed by a child that has the rights of the lease, and no more: a link leads it nowhere else.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn

from . import linux
from .sandbox import HOME, JOB_FOLDER, PRIVATE, Confinement, become

_QUEUES = "/proc/fs"  # where message queues are shown meanwhile: nobody can put a link there
_STICKY, _OWN = 0o1777, 0o700
_EXIT_OK, _EXIT_LEFT = 0, 1
_NO_KEYS = (errno.ENOSYS, errno.ENOKEY, errno.EOPNOTSUPP)  # the kernel has none


def wipe(
    confinement: Confinement,
    uid: int,
    gid: int,
    shown: Collection[str],
    remove: Callable[[str], None],
) -> bool:
    """Remove files, queues, shared memory, semaphores, keys; return whether nothing is left.

    Args:
        confinement: what the sandbox was made with.
        uid: of the lease.
        gid: likewise.
        shown: what is not the lease's, though it lies where that may write.
        remove: removes a directory with all that is in it.

    Raises:
        OSError: something cannot be removed.
    """
    _clear(linux.clear_keyring_of_session)  # which is ours as well
    linux.mount("mqueue", _QUEUES, "mqueue")
    try:
        child = os.fork()
        if child == 0:
            _be_lease(confinement, uid, gid, shown, remove)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        linux.detach(_QUEUES)
    return status == _EXIT_OK and _remove_ipc()


def _be_lease(
    confinement: Confinement,
    uid: int,
    gid: int,
    shown: Collection[str],
    remove: Callable[[str], None],
) -> NoReturn:
    """Remove what the lease's user may, and end with what came of it."""
    status = _EXIT_LEFT
    try:
        become(confinement, uid, gid)
        _clear(linux.clear_keyrings_of_user)
        if _empty_all(shown, remove):
            status = _EXIT_OK
    finally:
        os._exit(status)


def _clear(keyrings: Callable[[], None]) -> None:
    try:
        keyrings()
    except OSError as error:
        if error.errno not in _NO_KEYS:
            raise


def _empty_all(shown: Collection[str], remove: Callable[[str], None]) -> bool:
    """Have all places as they are in a new sandbox; return whether they are."""
    own = [HOME, JOB_FOLDER]
    public = sorted({os.path.realpath(path) for path in PRIVATE if os.path.isdir(path)})
    is_empty = True
    for path in public:
        is_empty &= _empty(path, {*own, *shown}, remove)
        with suppress(PermissionError):  # it is not the lease's: nobody can have changed it
            os.chmod(path, _STICKY)
    for path in own:
        if os.path.islink(path) or not os.path.isdir(path):
            return False
        os.chmod(path, _OWN)
        is_empty &= _empty(path, shown, remove)
    return is_empty and _empty(_QUEUES, (), remove)


def _empty(place: str, kept: Collection[str], remove: Callable[[str], None]) -> bool:
    """Remove all in a directory that neither is one of `kept` nor leads there; return if it is."""
    is_empty = True
    for path in [entry.path for entry in os.scandir(place)]:
        if path in kept:
            continue
        if any(one.startswith(path + "/") for one in kept):
            is_empty &= _empty(path, kept, remove)
        elif os.path.isdir(path) and not os.path.islink(path):
            remove(path)
            is_empty &= not os.path.lexists(path)
        else:
            with suppress(OSError):
                os.unlink(path)
            is_empty &= not os.path.lexists(path)
    return is_empty


# --- what has no name in the file system ---


def _remove_ipc() -> bool:
    """Remove System V shared memory, semaphores and queues; return whether none is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    kinds = {"shm": (libc.shmctl, 2), "sem": (libc.semctl, 3), "msg": (libc.msgctl, 2)}
    for kind, (control, arguments) in kinds.items():
        for number in _ids(kind):
            # sem: semid, semnum, cmd; else: id, cmd, buf
            words = (number, 0, 0) if arguments == 3 else (number, 0, None)
            control(*words)
    return not any(_ids(kind) for kind in kinds)


def _ids(kind: str) -> list[int]:
    """Return what there is of a kind in this namespace."""
    try:
        with open(f"/proc/sysvipc/{kind}") as file:
            lines = file.readlines()[1:]
    except FileNotFoundError:  # a kernel without
        return []
    return [int(line.split()[1]) for line in lines]
