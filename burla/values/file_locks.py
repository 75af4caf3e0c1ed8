"""Locks of open files, as `flock` has them; Windows has no shared ones."""

import errno
import os
import sys

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
else:
    LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8
    _BYTE = 1 << 30  # far behind what is in the file, for nobody else may read what is locked

    def flock(file: int, how: int) -> None:
        """Lock or unlock an open file. Who asks for a shared lock has it alone.

        Raises:
            BlockingIOError: another process has it, and LOCK_NB is in `how`.
            OSError: another process has had it for ten seconds.
        """
        import msvcrt

        before = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, _BYTE, os.SEEK_SET)
        try:
            kind = msvcrt.LK_NBLCK if how & LOCK_NB else msvcrt.LK_LOCK
            msvcrt.locking(file, msvcrt.LK_UNLCK if how == LOCK_UN else kind, 1)
        except PermissionError as error:  # EACCES, where others say EWOULDBLOCK
            raise BlockingIOError(errno.EWOULDBLOCK, error.strerror) from None
        finally:
            os.lseek(file, before, os.SEEK_SET)


# Of `os.open`: no child has the descriptor, and Windows leaves bytes as they are.
OPEN_PRIVATELY: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

__all__ = ["LOCK_EX", "LOCK_NB", "LOCK_SH", "LOCK_UN", "OPEN_PRIVATELY", "flock"]
