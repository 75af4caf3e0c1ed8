"""How often each of many names may do something: a burst at once, then so much a second. Pure.

What is over waits its turn, as long as that is worth while; whoever comes then is told no.
"""

NAMES_MAX = 1 << 14  # more than there are keys; those that are at rest are forgotten first


class Pacer:
    """A bucket of tokens for each name; a name that waits has taken its token ahead of time."""

    def __init__(self, burst: int, per_s: float, wait_max_s: float = 0.0) -> None:
        """Let each name do `burst` things at once, then `per_s`; none waits longer than told."""
        self._burst, self._per_s, self._wait_max_s = burst, per_s, wait_max_s
        self._full_s: dict[bytes, float] = {}  # name -> when its bucket is full again

    def wait_s(self, name: bytes, now_s: float, per_s: float | None = None) -> float | None:
        """Take a token of `name`; return when it may go on, in seconds from now; None: never.

        `per_s`: how many such names have a second, if not what was told; and a burst in proportion.
        """
        per_s = self._per_s if per_s is None else per_s
        full_s = max(self._full_s.get(name, now_s), now_s) + 1.0 / per_s
        wait_s = full_s - now_s - self._burst / self._per_s
        if wait_s > self._wait_max_s:
            return None
        if name not in self._full_s and len(self._full_s) >= NAMES_MAX:
            self._full_s = {n: at_s for n, at_s in self._full_s.items() if at_s > now_s}
            if len(self._full_s) >= NAMES_MAX:
                return None
        self._full_s[name] = full_s
        return max(0.0, wait_s)
