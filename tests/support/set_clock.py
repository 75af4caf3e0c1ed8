"""A clock that stands still until a test sets it."""


class SetClock:
    """Is called as `time.monotonic` is."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time that it was set to."""
        return self.now_s
