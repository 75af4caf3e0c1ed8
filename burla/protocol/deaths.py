"""How the death of a call's worker is told: the frame of an outcome of `Kind.DEATH`. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .fields import LINES
from .messages import Count, Names
from .words import cleaner

LAST_WORDS_LINES_MAX = 20
LAST_WORDS_BYTES_MAX = 4 << 10  # as the worker wrote them; what is not UTF-8 is replaced
DUMP_BYTES_MAX = 4 << 10  # of what faulthandler wrote: the beginning, where the crash is

# Why the node itself killed a worker, if that was not for memory:
CLOSED = "closed"  # the connection between the two was closed, though the worker went on
BROKEN = "broken"  # what the worker said made no sense
TIMEOUT = "timeout"  # its call took longer than it may, and could not be interrupted

Words = Annotated[str, Meta(max_length=LAST_WORDS_BYTES_MAX, extra={LINES: True})]
Dump = Annotated[str, Meta(max_length=DUMP_BYTES_MAX, extra={LINES: True})]
Why = Annotated[str, Meta(max_length=16)]


class OutOfMemoryFigures(Struct, frozen=True, array_like=True):
    """The memory when a worker was killed; all in bytes."""

    used: Count  # by the call; 0: not known
    limit: Count  # func_ram; 0: the node ran out
    total: Count  # of the node
    available: Count  # of the node


class Death(Struct, frozen=True, array_like=True):
    """nodelet -> client: the worker of one call died each time that the call was tried."""

    # "exit", "signal", "fork": it could not be forked, "node": see `nodes`
    how: Annotated[str, Meta(max_length=16)]
    code: int  # exit status (-1: unknown), number of the signal, errno
    deaths: Count
    memory: OutOfMemoryFigures | None = None  # it was killed for memory
    last_words: Words = ""  # the last lines that it wrote to stdout or stderr in this call
    killed_for: Why = ""  # CLOSED, BROKEN; empty: not by the node, or for memory
    seen: OutOfMemoryFigures | None = None  # at a SIGKILL that is not for memory, if it is known
    dump: Dump = ""  # where native code crashed, as faulthandler wrote it
    was_loading: bool = False  # the function: no call had begun
    nodes: Names = ()  # that were lost, the worker with them

    def encode(self) -> bytes:
        """Return the frame."""
        return msgspec.msgpack.encode(self)


def decode_death(frame: bytes) -> Death:
    """Return what a frame says.

    Raises:
        msgspec.DecodeError: it is none.
    """
    death = msgspec.msgpack.decode(frame, type=Death)
    clean = cleaner(Death)
    assert clean is not None
    told: Death = clean(death)
    return told
