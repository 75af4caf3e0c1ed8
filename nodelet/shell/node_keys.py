"""The keys of a node's connection, which may change in the middle of jobs: ours, the scheduler's.

A new key of ours counts beside the old one as soon as the scheduler has taken it; then it is
written, and used. If the answer gets lost, or we end before it is written, the scheduler tells us
again with the next connection, for as long as the old one counts.
"""

import logging
from collections.abc import Callable

from burla.protocol import messages as m
from burla.protocol.key_messages import KeyReplaced, RenewKey, ServerKey
from burla.transport.dialing import Dialer
from burla.transport.keys import KeyFileError, KeyPair, make_pair, overwrite_pair

OVERLAP_S = 600.0  # for so long the old key counts beside the new one

log = logging.getLogger(__name__)


class NodeKeys:
    """Does what the scheduler says of keys."""

    def __init__(
        self, dialer: Dialer, key_file: str | None, say: Callable[[m.Message], None]
    ) -> None:
        """Change keys of the connection of `dialer`.

        Args:
            dialer: of the connection.
            key_file: where our key is kept; None: nowhere.
            say: sends a message to the scheduler.
        """
        self._dialer, self._key_file, self._say = dialer, key_file, say
        self._next: KeyPair | None = None  # offered, and not taken yet

    def take(self, said: ServerKey | RenewKey | KeyReplaced) -> None:
        """Take a word of the scheduler."""
        match said:
            case ServerKey():
                self._dialer.learn(said)
            case RenewKey():
                self._next = self._next or make_pair()
                self._say(m.ReplaceKey(self._next.public, OVERLAP_S))
            case KeyReplaced():
                self._replaced(said)

    def _replaced(self, said: KeyReplaced) -> None:
        if self._next is None or said.key != self._next.public:
            return  # an answer of before
        pair, self._next = self._next, None
        if said.why:
            log.warning("the key of this node stays: %s", said.why)
            return
        if self._key_file is not None:
            try:
                overwrite_pair(self._key_file, pair)
            except (KeyFileError, OSError) as error:
                log.error("the new key of this node cannot be kept, the old one stays: %s", error)
                return
        log.info("the key of this node is replaced: connecting anew")
        self._dialer.change(pair)
