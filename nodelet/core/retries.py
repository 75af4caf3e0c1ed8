"""Which calls of a lease have failed and are called again, how often they have, and when. Pure.

The count of a call goes along with it: told with the next outcomes, which are numbered and kept,
and again with each Hello; the scheduler sends it with the input to whoever gets that next. So it
counts on whatever dies.
"""

from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from burla.protocol.fields import TRIED_MAX, CallPolicy, Span, Try
from burla.protocol.ranges import Ranges

from .custody import Custody
from .streams import OutcomeStream

_NO_POLICY = CallPolicy()


class _Failed(Struct):
    """A call that has failed."""

    tries: int
    due_s: float  # when it may be called again


class Retries:
    """The failed calls of one lease that have no outcome yet."""

    def __init__(
        self,
        policy: CallPolicy | None,
        lease: bytes,
        custody: Custody,
        outcomes: OutcomeStream,
    ) -> None:
        """Call again what `policy` says.

        Args:
            policy: of the job, if it has one.
            lease: makes waits differ.
            custody: where calls are that wait.
            outcomes: tells of failed tries.
        """
        self._policy = _NO_POLICY if policy is None else policy
        self._lease = lease
        self._custody, self._outcomes = custody, outcomes
        self._failed: dict[int, _Failed] = {}  # also those that were given back

    @property
    def after_timeouts(self) -> bool:
        """Whether a call that had to be killed may be called again."""
        return self._policy.retries_timeouts

    @property
    def deaths(self) -> int:
        """How many deaths of its worker a call may have, by the policy; 0: it does not say."""
        return self._policy.retries + 1 if self._policy.retries_deaths else 0

    def again(self, index: int, why: str, now_s: float) -> bool:
        """Take note that a call has failed; return whether it is called again, here or elsewhere.

        `why`: type of its error.
        """
        failed = self._failed.get(index)
        tries = 1 if failed is None else failed.tries + 1
        if tries > self._policy.retries:
            return False
        wait_s = self._wait_s(index, tries)
        self._failed[index] = _Failed(tries, now_s + wait_s)
        self._outcomes.note_try(Try(index, tries, wait_s, why.encode()[:256]), now_s)
        if self._policy.other_node:
            self._custody.give_up(Ranges([(index, index + 1)]))
        else:
            self._custody.queue.delay(index, now_s + wait_s)
        return True

    def tries(self, index: int) -> int:
        """Return how many tries of a call that has no outcome yet have failed."""
        failed = self._failed.get(index)
        return 0 if failed is None else failed.tries

    def _wait_s(self, index: int, tries: int) -> float:
        if not self._policy.backoff_s:
            return 0.0
        seed = blake2b(b"%s %d %d" % (self._lease, index, tries), digest_size=4).digest()
        return self._policy.wait_s(tries, int.from_bytes(seed, "big") / (1 << 32))

    def learn(self, tried: Iterable[Try], now_s: float) -> None:
        """Take over what is known of calls that come here."""
        for one in tried:
            known = self._failed.get(one.index)
            if known is None or one.tries >= known.tries:
                self._failed[one.index] = _Failed(one.tries, now_s + one.wait_s)

    def hold_back(self, spans: Iterable[Span], now_s: float) -> None:
        """Let calls that have just been assigned wait until they may be called again."""
        queue = self._custody.queue
        for span in spans if self._failed else ():
            for index in self._among(span.lo, span.hi):
                due_s = self._failed[index].due_s
                if due_s > now_s and queue.ranges.remove(index, index + 1):
                    queue.delay(index, due_s)

    def _among(self, lo: int, hi: int) -> list[int]:
        if len(self._failed) < hi - lo:
            return [index for index in self._failed if lo <= index < hi]
        return [index for index in range(lo, hi) if index in self._failed]

    def forget(self, lo: int, hi: int) -> None:
        """Forget calls that have their outcomes, here or elsewhere."""
        if self._failed:
            for index in self._among(lo, hi):
                del self._failed[index]

    def known(self, now_s: float) -> tuple[Try, ...]:
        """Return what is known of calls without outcome, for a Hello."""
        latest = list(self._failed.items())[-TRIED_MAX:]
        return tuple(Try(index, one.tries, max(0.0, one.due_s - now_s)) for index, one in latest)
