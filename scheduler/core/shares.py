"""How much of the scheduler's time each key takes, and what waits meanwhile. Pure.

Whoever takes more than a share of it waits: its messages are kept in order, and are dealt with when
it has paid, or when nobody else has anything to say. So a key that is alone has all of the time.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field

from burla.protocol.codec import FRAME_COST

SHARE = 0.2  # of the time
SAVED_S = 0.2  # a key that was quiet may take so much at once
DEBT_MAX_S = 1.0  # more than this nobody has to pay
BACKLOG_BYTES_MAX = 128 << 20  # of one key: what an honest client has under way of one job
MESSAGE_COST = 512  # bytes that a message takes beside its frames

Frames = list[bytes]


class _Account(Struct):
    balance_s: float  # of time; less than nothing: it has taken too much
    at_s: float  # when that was so
    backlog: deque[Frames] = field(default_factory=deque)
    cost: int = 0  # bytes in the backlog

    def has_paid(self, now_s: float) -> bool:
        return self.balance_s + (now_s - self.at_s) * SHARE >= 0.0


def cost_of(frames: Sequence[bytes]) -> int:
    """Return how many bytes a message takes while it waits."""
    return MESSAGE_COST + FRAME_COST * len(frames) + sum(map(len, frames))


class Shares:
    """The accounts of all keys that have spoken lately."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._accounts: dict[str, _Account] = {}
        self._waiting: dict[str, _Account] = {}  # those with a backlog, whose turn it is first

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._waiting)

    def charge(self, user: str, cost_s: float, now_s: float) -> None:
        """Note that `user` has taken so much time until now."""
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(SAVED_S, now_s)
        balance_s = account.balance_s + (now_s - account.at_s) * SHARE
        balance_s = (balance_s if balance_s < SAVED_S else SAVED_S) - cost_s
        account.balance_s = balance_s if balance_s > -DEBT_MAX_S else -DEBT_MAX_S
        account.at_s = now_s

    def must_wait(self, user: str, now_s: float) -> bool:
        """Return whether what `user` says now has to wait."""
        account = self._accounts.get(user)
        if account is None:
            return False
        return bool(account.backlog) or not account.has_paid(now_s)

    def put(self, user: str, frames: Frames) -> bool:
        """Let a message wait; return False if there is no room for it."""
        account = self._accounts[user]
        cost = cost_of(frames)
        if account.cost + cost > BACKLOG_BYTES_MAX:
            return False
        account.backlog.append(frames)
        account.cost += cost
        self._waiting.setdefault(user, account)
        return True

    def pop(self, now_s: float, *, is_idle: bool) -> tuple[str, Frames] | None:
        """Return what is to be dealt with next; None: nothing.

        Args:
            now_s: when.
            is_idle: nobody else has anything to say: whoever waits may go on without having paid.
        """
        for user, account in self._waiting.items():
            if not is_idle and not account.has_paid(now_s):
                continue
            frames = account.backlog.popleft()
            account.cost -= cost_of(frames)
            del self._waiting[user]
            if account.backlog:
                self._waiting[user] = account  # behind the others
            return user, frames
        return None

    def forget(self, now_s: float) -> None:
        """Drop the accounts of those that are quiet."""
        full_s = SAVED_S / SHARE + DEBT_MAX_S / SHARE
        self._accounts = {
            user: account
            for user, account in self._accounts.items()
            if account.backlog or now_s < account.at_s + full_s
        }
