"""Messages by which people read what calls of a job have printed, and follow what they print. Pure.

They go only to a scheduler that has said `OUTPUT` among the features in its Welcome. Who asks sees
the output of the same user's jobs; administrators that of all.

Chunks of output are numbered as the scheduler got them: their places. Who follows names a topic of
its own, which it has subscribed to; what comes there has places, too, so that it fits behind what
was read, without a gap or a double: after a gap it is read again from there.
"""

from typing import Annotated

from msgspec import Meta, Struct

from .fields import (
    Count,
    Id,
    Message,
    Owner,
    Seconds,
    Streams,
    Whose,
    Word,
)
from .job_messages import Why

OUTPUT = "output"  # a feature: who says so answers the messages here
READ_BYTES = 512 << 10  # of one answer, or one chunk if that has more
PARTS_MAX = 4096  # of one answer
FOLLOW_S = 30.0  # who follows asks again within that, or hears no more


class OutputPart(Struct, frozen=True, array_like=True):
    """Chunks of output of one lease, with the places `place`, `place` + 1, ..."""

    place: Count
    lease: Id
    node: Word
    ago_s: Seconds  # since it came
    streams: Streams  # per chunk: each has a frame
    # per chunk: of one of the inputs [lo, hi), which is mostly just one; empty: not known
    inputs: Whose = ()


class ReadOutput(Message, frozen=True):
    """client -> scheduler: what was printed from place `after` on? Answered by KeptOutput.

    With a topic the asker follows the job: what comes from now on is published there as well, for
    `FOLLOW_S`, until this is said again, or the job is over.
    """

    job: Word  # the first hexadecimal digits of its id; empty: the one that was opened last
    after: Count = 0
    topic: Owner = b""  # 16 bytes that nobody guesses, or none


class KeptOutput(Message, frozen=True):
    """scheduler -> client: output of a job. Payload: a frame for each chunk.

    What has no place between `after` and `stop`, and is not in a part, is not kept: of a job that
    prints much there are the first part and the last one.
    """

    job: Owner  # its id; empty: there is none, or it cannot be read, and `why`
    parts: Annotated[tuple[OutputPart, ...], Meta(max_length=PARTS_MAX)] = ()
    stop: Count = 0  # behind the last chunk that there is
    lost_bytes: Count = 0  # that are left out between `after` and the last of the parts
    is_over: bool = False  # the job is, and nothing more comes
    why: Why = ""
