"""Where the standard library lies, of this Python and of others.

A caller's Python may be another one of the same version, which is on this machine, too: what it has
built of the standard library need not load here, or does something else.
"""

import os
import sys
from collections.abc import Sequence

_PLACE = os.path.dirname(os.__file__)
_ZIPPED = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
_BUILT = "lib-dynload"  # beside what is in Python
_MARKS = ("os.py", os.path.join("encodings", "__init__.py"))  # Python does not start without them


def is_standard(entry: object) -> bool:
    """Return whether the standard library of this Python lies there, or a part of it."""
    if not isinstance(entry, str) or {"site-packages", "dist-packages"} & set(entry.split(os.sep)):
        return False
    return os.path.join(entry, "").startswith(os.path.join(_PLACE, "")) or (
        os.path.basename(entry) == _ZIPPED
    )


_OURS = tuple(entry for entry in sys.path if is_standard(entry))


def with_ours(path: Sequence[str]) -> tuple[str, ...]:
    """Return an import path with our standard library in the place of another Python's."""
    replaced: list[str] = []
    for entry in path:
        replaced += _OURS if entry in _OURS or _is_anothers(entry) else (entry,)
    return tuple(dict.fromkeys(replaced))


def _is_anothers(entry: str) -> bool:
    if os.path.basename(entry) in (_ZIPPED, _BUILT):
        return True
    # somebody's own os.py makes no library of the folder that it is in
    return all(os.path.isfile(os.path.join(entry, name)) for name in _MARKS)
