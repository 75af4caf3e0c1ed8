"""What each worker wrote last, for the error that tells of its death. Pure."""

from burla.protocol.deaths import LAST_WORDS_BYTES_MAX, LAST_WORDS_LINES_MAX


class LastWords:
    """The end of what workers wrote, in the order in which it came."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: dict[int, bytes] = {}  # by worker

    def begin(self, worker: int) -> None:
        """Note that a worker that had nothing to run begins something: what it said is over."""
        self._said.pop(worker, None)

    def note(self, worker: int, data: bytes) -> None:
        """Keep the end of what a worker writes."""
        said = self._said.get(worker)
        whole = data if said is None else said + data
        self._said[worker] = whole[-LAST_WORDS_BYTES_MAX:]

    def take(self, worker: int) -> str:
        """Return the last lines of a worker that is dead."""
        lines = self._said.pop(worker, b"").decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-LAST_WORDS_LINES_MAX:])
