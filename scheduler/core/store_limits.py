"""What each user may have in the store. Pure; settings are made of it, so it imports little."""

from msgspec import Struct

KEEP_S = 7 * 86400.0
BYTES_MAX = 64 << 30
JOBS_MAX = 10_000


class Limits(Struct, frozen=True):
    """What each user may have in the store, and for how long after it has ended."""

    keep_s: float = KEEP_S
    bytes_max: int = BYTES_MAX
    jobs_max: int = JOBS_MAX
