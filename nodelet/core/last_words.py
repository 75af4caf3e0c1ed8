"""What each worker wrote last, for the error that tells of its death. Pure."""

from burla.protocol.deaths import LAST_WORDS_BYTES_MAX, LAST_WORDS_LINES_MAX

CALL_BYTES_MAX = 2 << 10  # of a call that has ended


class LastWords:
    """The end of what workers wrote, in the order in which it came."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: dict[int, bytes] = {}  # by worker
        self._fresh: dict[int, int] = {}  # how many bytes of that its last call has written

    def begin(self, worker: int) -> None:
        """Note that a worker that had nothing to run begins something: what it said is over."""
        self._said.pop(worker, None)
        self._fresh.pop(worker, None)

    def call_ended(self, worker: int) -> None:
        """Note that what comes now is of another call."""
        self._fresh.pop(worker, None)

    def of_call(self, worker: int) -> bytes:
        """Return the last lines of the call that has just ended."""
        said = self._said.get(worker, b"")
        said = said[max(0, len(said) - self._fresh.get(worker, 0)) :][-CALL_BYTES_MAX:]
        return b"\n".join(said.splitlines()[-LAST_WORDS_LINES_MAX:])

    def note(self, worker: int, data: bytes) -> None:
        """Keep the end of what a worker writes."""
        said = self._said.get(worker)
        whole = data if said is None else said + data
        self._said[worker] = whole[-LAST_WORDS_BYTES_MAX:]
        self._fresh[worker] = self._fresh.get(worker, 0) + len(data)

    def take(self, worker: int) -> str:
        """Return the last lines of a worker that is dead."""
        self._fresh.pop(worker, None)
        lines = self._said.pop(worker, b"").decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-LAST_WORDS_LINES_MAX:])
