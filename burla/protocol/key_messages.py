"""Messages by which keys change in the middle of jobs. Pure.

They go only to a peer that has said `KEYS` among the features in its Hello or Welcome.
"""

from .fields import Key, Message, Seconds, Text

KEYS = "keys"  # a feature: who says so knows the messages here


class ServerKey(Message, frozen=True):
    """scheduler -> client or nodelet: this will be my key. Said once, and after each Welcome.

    Who hears it knows by the key of now that it comes from the scheduler.
    """

    key: Key  # public
    from_s: Seconds  # Unix time: from then on; until then the one of now counts


class RenewKey(Message, frozen=True):
    """scheduler -> nodelet: make yourself a new key. Answered by ReplaceKey."""


class KeyReplaced(Message, frozen=True):
    """scheduler -> nodelet: answer to ReplaceKey: connect under the new key from now on."""

    key: Key  # public: the new one
    why: Text = ""  # it was not taken, and why
