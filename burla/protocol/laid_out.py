"""How a big value lies in one piece, for who has to cut it for nodes that take only frames. Pure.

Its head has the sizes of its pickle and of the buffers beside it, little-endian: a byte, their
number (4 bytes), and 8 bytes for each. The pickle follows at once, each buffer at the next multiple
of `ALIGN`. `burla/values/frames.py` makes and opens it; here nothing of it is opened.
"""

import struct

from burla.limits import BUFFERS_MAX, FRAME_BYTES_MAX

ALIGN = 64

_HEAD = struct.Struct("<cI")
_SIZE = struct.Struct("<Q")


def frames_of(laid: memoryview) -> list[bytes]:
    """Return a value in frames, as it is sent whole: each part of it begins one.

    Raises:
        ValueError: it does not lie as its head says.
    """
    if len(laid) < _HEAD.size:
        raise ValueError("it has no head")
    _, buffers = _HEAD.unpack_from(laid)
    end = _HEAD.size + _SIZE.size * (buffers + 1)
    if buffers > BUFFERS_MAX or end > len(laid):
        raise ValueError(f"{buffers} buffers")
    sizes = [size for (size,) in _SIZE.iter_unpack(laid[_HEAD.size : end])]
    at = end + sizes[0]
    frames = _cut(laid[:at]) if at <= FRAME_BYTES_MAX else [bytes(laid[:end]), *_cut(laid[end:at])]
    for size in sizes[1:]:
        at += -at % ALIGN
        frames += _cut(laid[at : at + size])
        at += size
    if at != len(laid):
        raise ValueError(f"parts of {at} bytes in {len(laid)} bytes")
    return frames


def _cut(part: memoryview) -> list[bytes]:
    step = FRAME_BYTES_MAX
    return [bytes(part[at : at + step]) for at in range(0, len(part), step)]
