"""Results as they are kept for other processes.

A worker names a class of the caller's `__main__` by an id that the caller's process alone knows. So
a result with such a class is pickled anew, by names that the next run of the script knows, too.
"""

import pickle
from collections.abc import Sequence
from typing import Any

from .frames import NotLoadableError, Pieces, join, join_view
from .shared_memory import VIEW, is_reference, peek

_BY_ID = b"_known_class"  # what loads such a name


def kept_frames(frames: Sequence[Any], *, many: bool) -> list[Any] | None:
    """Return the frames of a result, or of a list of plain ones, to be written to a file.

    They may be memory that is shared, which is left to who loads it. None: another process could
    not load them.
    """
    if frames and is_reference(frames[0]):
        try:
            frames = _peek(frames[0])
        except OSError:
            return None
    if many or not _has_ids(frames):
        return list(frames)
    try:
        pieces = Pieces()
        # not by `load_result`, which may let go of what it has read: who loads it is to find it
        data, buffers = join(frames)
        result = pickle.loads(data, buffers=buffers)
        pickle.Pickler(pieces, 5, buffer_callback=pieces.hold).dump(result)
        return list(pieces.cut())
    except Exception:  # of a class that no name leads to
        return None


def _peek(reference: Any) -> Sequence[Any]:
    if reference[:1] != VIEW:
        return [peek(reference)]
    pieces = Pieces()
    data, pieces.buffers = join_view(reference, is_taken=False)
    pieces.data.append(data)
    return pieces.cut()


def _has_ids(frames: Sequence[Any]) -> bool:
    if len(frames) == 1 and len(frames[0]) <= 1 << 20:
        return _BY_ID in bytes(frames[0])
    try:
        data, _ = join(frames)
    except NotLoadableError:
        return True
    return _BY_ID in bytes(data) if len(data) < 64 << 20 else False
