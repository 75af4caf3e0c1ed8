"""How the death of a call's worker is told: the frame of an outcome of `Kind.DEATH`. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .messages import Count

LAST_WORDS_LINES_MAX = 20
LAST_WORDS_BYTES_MAX = 4 << 10  # as the worker wrote them; what is not UTF-8 is replaced

Words = Annotated[str, Meta(max_length=LAST_WORDS_BYTES_MAX)]


class OutOfMemoryFigures(Struct, frozen=True, array_like=True):
    """Why a worker was killed for memory; all in bytes."""

    used: Count  # by the call; 0: not known
    limit: Count  # func_ram; 0: the node ran out
    total: Count  # of the node
    available: Count  # of the node


class Death(Struct, frozen=True, array_like=True):
    """nodelet -> client: the worker of one call died each time that the call was tried."""

    how: Annotated[str, Meta(max_length=16)]  # "exit", "signal", "fork": it could not be forked
    code: int  # exit status (-1: unknown), number of the signal, errno
    deaths: Count
    memory: OutOfMemoryFigures | None = None  # it was killed for memory
    last_words: Words = ""  # the last lines that it wrote to stdout or stderr in this call

    def encode(self) -> bytes:
        """Return the frame."""
        return msgspec.msgpack.encode(self)


def decode_death(frame: bytes) -> Death:
    """Return what a frame says.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return msgspec.msgpack.decode(frame, type=Death)
