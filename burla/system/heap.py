"""What the C library does with memory that was freed."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 32 << 20  # at the end of a heap; what passes through a daemon at once
MAPPED_BYTES_MIN = 32 << 20  # the most that glibc takes


def keep_freed() -> None:
    """Keep freed memory for what comes next, of a process through which frames of 1 MiB pass.

    Else each of them may be given back and taken anew, page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every C library has it
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
